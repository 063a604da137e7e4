"""What it takes to continue an answer that was cut: it is one sequence, and it had not ended."""

from collections.abc import Collection, Sequence

from headrace.core.counted import counted
from headrace.core.errors import HeadraceError
from headrace.core.limits import ModelLimits
from headrace.core.sampling_params import SamplingParams


def check_continuation(
    limits: ModelLimits,
    prompt_token_ids: Sequence[int],
    output_token_ids: Sequence[int],
    params: SamplingParams,
    eos_token_ids: Collection[int],
) -> None:
    """Raise `HeadraceError` if the answer to a checked prompt cannot go on after `output_token_ids`.

    Stop strings are not looked for: whoever turns the ids into text finds them.
    """
    _check_form(params)
    limits.check_token_ids("output_token_ids", output_token_ids)
    room = limits.max_model_len - len(prompt_token_ids)
    longest = min(params.max_tokens or room, room)
    if len(output_token_ids) >= longest:
        raise has_ended(
            f"output_token_ids has {counted(len(output_token_ids), 'token')}", f"This answer has at most {longest}"
        )
    ends = {*(params.stop_token_ids or ()), *(() if params.ignore_eos else eos_token_ids)}
    counting = output_token_ids[max(0, params.min_tokens - 1) :]
    if not ends.isdisjoint(counting):
        found = next(token_id for token_id in counting if token_id in ends)
        raise has_ended(f"output_token_ids has the token {found}", "This token ends the answer")


def has_ended(what: str, rule: str) -> HeadraceError:
    """The error for an answer that is complete, so that there is nothing to continue."""
    fix = "Do not continue it: the answer is complete"
    return HeadraceError(what, rule=rule, fix=fix, param="output_token_ids")


def _check_form(params: SamplingParams) -> None:
    if params.seed is None and not params.greedy:
        raise HeadraceError(
            f"temperature is {params.temperature} and seed is not set",
            rule="The tokens that follow are drawn with the noise of the seed that drew those before",
            fix="Set the seed of the answer that was cut, or temperature 0 if it had that",
            param="seed",
        )
    if params.n != 1:
        raise HeadraceError(
            f"n is {params.n} and output_token_ids is set",
            rule="One sequence is continued",
            fix="Continue each choice in a request of its own",
            param="n",
        )
    if params.prompt_logprobs is not None:
        raise HeadraceError(
            f"prompt_logprobs is {params.prompt_logprobs} and output_token_ids is set",
            rule="They came with the answer that was cut",
            fix="Leave it out",
            param="prompt_logprobs",
        )
