"""From a checked body to `SamplingParams`: the model's own defaults, and the room that the context leaves."""

import re
from collections.abc import Sequence
from typing import Any

from headrace.core.continuation import check_continuation
from headrace.core.errors import HeadraceError
from headrace.core.limits import ModelLimits
from headrace.core.sampling_params import RequestOutputKind, SamplingParams
from headrace.server.protocol.chat import ChatCompletionRequest
from headrace.server.protocol.completions import CompletionRequest
from headrace.server.state import ServerState

GenerateBody = ChatCompletionRequest | CompletionRequest

_PASSED_ON = frozenset(
    {
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "n",
        "min_tokens",
        "seed",
        "stop",
        "stop_token_ids",
        "ignore_eos",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "include_stop_str_in_output",
        "bad_words",
        "allowed_token_ids",
        "logit_bias",
    }
)


def sampling_params(body: GenerateBody, prompt_token_ids: Sequence[int], state: ServerState) -> SamplingParams:
    """The parameters of one prompt. Raises `HeadraceError` for what the model or its context cannot hold."""
    limits, defaults = _limits(body, state), state.client.text.sampling_defaults
    limits.check_prompt(prompt_token_ids)
    values: dict[str, Any] = dict(defaults)
    for name in _PASSED_ON & body.model_fields_set:
        if (value := getattr(body, name)) is not None:
            values[name] = value
    values["max_tokens"] = _max_tokens(body, limits.max_model_len - len(prompt_token_ids), defaults.get("max_tokens"))
    values["logprobs"], values["prompt_logprobs"] = body.num_logprobs, _prompt_logprobs(body)
    values["output_kind"] = RequestOutputKind.DELTA if body.stream else RequestOutputKind.FINAL_ONLY
    try:
        params = SamplingParams(**values)
    except HeadraceError as error:
        raise _in_words_of(body, error) from None
    limits.check_params(len(prompt_token_ids), params)
    return params


def check_prompts(
    body: GenerateBody, prompts: Sequence[tuple[Sequence[int], Sequence[int]]], state: ServerState
) -> None:
    """Raise `HeadraceError` if a prompt, or what was told of its answer, holds what the model does not take."""
    limits = _limits(body, state)
    for prompt_token_ids, told_token_ids in prompts:
        limits.check_prompt(prompt_token_ids)
        limits.check_token_ids("output_token_ids", told_token_ids)


def check_told(
    body: GenerateBody,
    prompt_token_ids: Sequence[int],
    told_token_ids: Sequence[int],
    params: SamplingParams,
    state: ServerState,
) -> None:
    """Raise `HeadraceError` if the answer that begins with `told_token_ids` cannot be continued."""
    eos_token_ids = state.client.text.eos_token_ids
    check_continuation(_limits(body, state), prompt_token_ids, told_token_ids, params, eos_token_ids)


def _in_words_of(body: GenerateBody, error: HeadraceError) -> HeadraceError:
    """`error`, with the field at fault called as the client called it."""
    name = body.field_names.get(error.param or "")
    if name is None:
        return error
    what, rule, fix = (re.sub(rf"\b{error.param}\b", name, text) for text in (error.what, error.rule, error.fix))
    return HeadraceError(what, rule=rule, fix=fix, param=name, kind=error.kind)


def _limits(body: GenerateBody, state: ServerState) -> ModelLimits:
    """The model's limits, with fields called as this body calls them."""
    ready = state.client.limits
    return ModelLimits(
        ready.max_model_len, ready.vocab_size, state.max_logprobs, ready.longest_context, body.field_names
    )


def _max_tokens(body: GenerateBody, room: int, model_default: float | None) -> int:
    if body.token_limit is not None:
        return body.token_limit
    default = body.default_token_limit or model_default
    return room if default is None else min(room, int(default))


def _prompt_logprobs(body: GenerateBody) -> int | None:
    if body.prompt_logprobs is not None and body.stream:
        raise HeadraceError(
            "prompt_logprobs is set and stream is true",
            rule="Prompt logprobs come with whole answers",
            fix="Set stream to false",
            param="prompt_logprobs",
        )
    if body.prompt_logprobs is None and body.echo:
        return body.num_logprobs
    return body.prompt_logprobs
