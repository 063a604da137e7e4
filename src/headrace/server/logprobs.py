"""Log probabilities in OpenAI's two shapes, and vLLM's prompt logprobs."""

from collections.abc import Sequence

from headrace.core.outputs import Logprob, TokenLogprobs
from headrace.text.tokenizer import Tokenizer

LEAST = -9999.0
"""What stands for minus infinity, which JSON cannot hold."""


class TokenNames:
    """How a token is written in an answer: its text, or `token_id:N` when the request asked for that."""

    def __init__(self, tokenizer: Tokenizer, *, as_ids: bool) -> None:
        self._tokenizer = tokenizer
        self._as_ids = as_ids

    def name(self, token_id: int) -> str:
        """The token's text; bytes that are no whole character become the replacement character."""
        return f"token_id:{token_id}" if self._as_ids else self._tokenizer.token_text(token_id)

    def text(self, token_ids: list[int]) -> str:
        """The text of a sequence, special tokens included."""
        return self._tokenizer.decode(token_ids, skip_special_tokens=False)

    def octets(self, token_id: int) -> list[int]:
        """The token's bytes."""
        return list(self._tokenizer.token_bytes(token_id))


def chat_logprobs(
    token_ids: Sequence[int], logprobs: Sequence[TokenLogprobs], num_top: int, names: TokenNames
) -> dict[str, object]:
    """`choices[].logprobs` of the chat route."""
    content = []
    for token_id, position in zip(token_ids, logprobs, strict=True):
        entry = _chat_entry(token_id, position[token_id], names)
        entry["top_logprobs"] = [_chat_entry(*top, names) for top in _most_likely(position, num_top)]
        content.append(entry)
    return {"content": content, "refusal": None}


def completion_logprobs(
    token_ids: Sequence[int],
    logprobs: Sequence[TokenLogprobs | None],
    num_top: int,
    names: TokenNames,
    first_offset: int,
) -> tuple[dict[str, object], int]:
    """`choices[].logprobs` of the completions route, and the text offset after its last token."""
    tokens = [names.name(token_id) for token_id in token_ids]
    offsets = [first_offset]
    for token in tokens:
        offsets.append(offsets[-1] + len(token))
    shape = {
        "text_offset": offsets[:-1],
        "tokens": tokens,
        "token_logprobs": [
            None if position is None else finite(position[token_id].logprob)
            for token_id, position in zip(token_ids, logprobs, strict=True)
        ],
        "top_logprobs": [
            None if position is None else _completion_top(position, num_top, names) for position in logprobs
        ],
    }
    return shape, offsets[-1]


def prompt_logprobs(
    positions: Sequence[TokenLogprobs | None] | None, names: TokenNames
) -> list[dict[str, object] | None] | None:
    """vLLM's `prompt_logprobs`: for each position token id -> logprob, rank and text."""
    if positions is None:
        return None
    return [None if position is None else _prompt_position(position, names) for position in positions]


def _prompt_position(position: TokenLogprobs, names: TokenNames) -> dict[str, object]:
    return {
        str(token_id): {"logprob": finite(each.logprob), "rank": each.rank, "decoded_token": names.name(token_id)}
        for token_id, each in position.items()
    }


def _chat_entry(token_id: int, logprob: Logprob, names: TokenNames) -> dict[str, object]:
    return {"token": names.name(token_id), "logprob": finite(logprob.logprob), "bytes": names.octets(token_id)}


def _completion_top(position: TokenLogprobs, num_top: int, names: TokenNames) -> dict[str, float]:
    """The most likely tokens and the chosen one, which comes first in `position`. Of two equal texts the likelier."""
    chosen = next(iter(position.items()))
    top: dict[str, float] = {}
    for token_id, logprob in [*_most_likely(position, num_top), chosen]:
        top.setdefault(names.name(token_id), finite(logprob.logprob))
    return top


def _most_likely(position: TokenLogprobs, count: int) -> list[tuple[int, Logprob]]:
    ranked = sorted(position.items(), key=lambda item: -item[1].logprob)
    return ranked if count == -1 else ranked[:count]


def finite(logprob: float) -> float:
    """The log probability as JSON can hold it."""
    return max(logprob, LEAST)
