"""From one message to the sequences that the scheduler runs."""

import time

from headrace.core.errors import HeadraceError
from headrace.core.limits import ModelLimits
from headrace.engine.request import Request
from headrace.wire.messages import AddRequest


def make_requests(
    message: AddRequest, limits: ModelLimits, key: tuple[int, int], fallback_seed: int, hash_seed: bytes
) -> list[Request]:
    """The n sequences of a message that `limits` has accepted. They differ by their seeds and the end of their keys.

    Raises `HeadraceError` if the parameters leave no token to sample. Ids that the model does not have, which a
    tokenizer or a generation config may name, are left out.
    """
    params, prompt = message.params, message.prompt_token_ids
    now = time.monotonic()
    room = limits.max_model_len - len(prompt)
    ends = frozenset(() if params.ignore_eos else message.eos_token_ids)
    bad_words = [word for word in message.bad_words_token_ids if max(word) < limits.vocab_size]
    seed = fallback_seed if params.seed is None else params.seed
    requests = [
        Request(
            uid=uid,
            tokens=[*prompt, *message.output_token_ids],
            params=params,
            max_total_tokens=len(prompt) + min(room, params.max_tokens or room),
            stop_token_ids=frozenset(params.stop_token_ids or ()),
            eos_token_ids=frozenset(token for token in ends if 0 <= token < limits.vocab_size),
            bad_words_token_ids=bad_words,
            key=(*key, index),
            seed=seed + index,
            hash_seed=hash_seed,
            num_prompt=len(prompt),
            arrival=now,
        )
        for index, uid in enumerate(message.uids)
    ]
    _check_something_is_left(requests[0], limits.vocab_size)
    return requests


def _check_something_is_left(request: Request, vocab_size: int) -> None:
    """Refuse a request all of whose tokens are forbidden by its parameters."""
    params = request.params
    forbidden = {word[0] for word in request.bad_words_token_ids if len(word) == 1}
    if params.min_tokens > 0:
        forbidden |= request.stop_token_ids | request.eos_token_ids
    allowed = params.allowed_token_ids
    left = vocab_size - len(forbidden) if allowed is None else len(set(allowed) - forbidden)
    if left == 0:
        named = "The whole vocabulary is allowed" if allowed is None else f"allowed_token_ids is {allowed}"
        raise HeadraceError(
            f"{named}, and each of them is forbidden",
            rule="bad_words forbids its words, and min_tokens the tokens that would end the answer before",
            fix="Allow another token, or lower min_tokens",
            param="allowed_token_ids",
        )
