"""From a checked body to `SamplingParams`: the model's own defaults, the context's room, the vocabulary."""

from collections.abc import Iterable, Sequence
from typing import Any

from headrace.core.errors import HeadraceError
from headrace.core.sampling_params import RequestOutputKind, SamplingParams
from headrace.server.errors import context_error
from headrace.server.protocol.chat import ChatCompletionRequest
from headrace.server.protocol.completions import CompletionRequest
from headrace.server.state import ServerState

GenerateBody = ChatCompletionRequest | CompletionRequest

_WITH_MODEL_DEFAULT = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_PASSED_ON = (
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
)


def sampling_params(body: GenerateBody, num_prompt_tokens: int, state: ServerState) -> SamplingParams:
    """The parameters of one prompt. Raises `HeadraceError` for what the model or its context cannot hold."""
    limits, defaults = state.client.limits, state.client.text.sampling_defaults
    values: dict[str, Any] = {name: value for name in _PASSED_ON if (value := getattr(body, name)) is not None}
    for name in _WITH_MODEL_DEFAULT:
        value = getattr(body, name)
        if value is not None or name in defaults:
            values[name] = defaults[name] if value is None else value
    params = SamplingParams(
        **values,
        max_tokens=_max_tokens(body, num_prompt_tokens, limits.max_model_len, defaults.get("max_tokens")),
        logprobs=body.num_logprobs,
        prompt_logprobs=_prompt_logprobs(body),
        output_kind=RequestOutputKind.DELTA if body.stream else RequestOutputKind.FINAL_ONLY,
    )
    _check_vocabulary(params, limits.vocab_size)
    _check_logprobs(body, params, state.max_logprobs, limits.vocab_size)
    return params


def check_token_ids(name: str, token_ids: Iterable[int], vocab_size: int) -> None:
    """Raise unless all ids are in the vocabulary."""
    for token_id in token_ids:
        if not 0 <= token_id < vocab_size:
            raise HeadraceError(
                f"{name} holds the token id {token_id}",
                rule=f"The model's token ids are 0 to {vocab_size - 1}",
                fix="Use this model's tokenizer, see /tokenize",
                param=name,
            )


def check_prompt(name: str, token_ids: Sequence[int], max_model_len: int) -> None:
    """Raise unless the prompt has at least one token and leaves room for at least one."""
    if not token_ids:
        raise HeadraceError(f"{name} has no tokens", rule="A prompt needs at least one token", param=name)
    if len(token_ids) >= max_model_len:
        raise context_error(
            f"The prompt has {len(token_ids)} tokens and the context is {max_model_len} tokens",
            "The prompt and at least one new token must fit the context",
            "Shorten the prompt, or start the server with a larger --max-model-len if the model allows it",
            name,
        )


def _max_tokens(body: GenerateBody, num_prompt_tokens: int, max_model_len: int, model_default: float | None) -> int:
    room = max_model_len - num_prompt_tokens
    limit = body.token_limit
    if limit is None:
        default = body.default_token_limit or model_default
        return room if default is None else min(room, int(default))
    if limit <= room:
        return limit
    name = "max_tokens" if getattr(body, "max_completion_tokens", None) is None else "max_completion_tokens"
    raise context_error(
        f"{name} is {limit} and the prompt has {num_prompt_tokens} tokens, together {limit + num_prompt_tokens}",
        f"They must fit the context of {max_model_len} tokens",
        f"Use {name}={room} or less, or leave it out",
        name,
    )


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


def _check_vocabulary(params: SamplingParams, vocab_size: int) -> None:
    check_token_ids("logit_bias", params.logit_bias or (), vocab_size)
    check_token_ids("allowed_token_ids", params.allowed_token_ids or (), vocab_size)
    check_token_ids("stop_token_ids", params.stop_token_ids or (), vocab_size)


def _check_logprobs(body: GenerateBody, params: SamplingParams, max_logprobs: int, vocab_size: int) -> None:
    limit = vocab_size if max_logprobs == -1 else max_logprobs
    chat_name = "top_logprobs" if isinstance(body, ChatCompletionRequest) else "logprobs"
    for name, asked in ((chat_name, params.logprobs), ("prompt_logprobs", params.prompt_logprobs)):
        if asked is not None and (vocab_size if asked == -1 else asked) > limit:
            raise HeadraceError(
                f"{name} is {asked}",
                rule=f"The server gives at most {limit} for each position",
                fix="Ask for fewer, or start the server with a larger --max-logprobs",
                param=name,
            )
