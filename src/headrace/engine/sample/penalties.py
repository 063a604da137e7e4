"""Presence, frequency and repetition penalties over the tokens that a sequence has so far."""

from collections.abc import Sequence

import torch
from torch import Tensor

from headrace.engine.request import Request
from headrace.engine.sample.logprobs import CHUNK_ROWS
from headrace.engine.sample.transfer import upload


class Penalties:
    """Token counts of up to `num_rows` rows, on the device: allocated as a whole when the first row uses a penalty."""

    def __init__(self, num_rows: int, vocab_size: int, device: torch.device) -> None:
        self._num_rows = num_rows
        self._device = device
        self._output_counts = torch.empty(0, vocab_size, dtype=torch.int32, device=device)
        self._in_prompt = torch.empty(0, vocab_size, dtype=torch.bool, device=device)

    def add(self, request: Request) -> None:
        """Count the tokens that an admitted request already has."""
        if not request.params.has_penalties:
            return
        self._allocate()
        tokens = upload(request.tokens, torch.int64, self._device)
        prompt, output = tokens[: request.num_prompt], tokens[request.num_prompt :]
        self._in_prompt[request.row].zero_().index_fill_(0, prompt, True)
        self._output_counts[request.row].zero_().index_add_(0, output, torch.ones_like(output, dtype=torch.int32))

    def apply(self, logits: Tensor, requests: Sequence[Request]) -> None:
        """Change the logits [R, V] of the rows that use penalties, in place, by vLLM's (and OpenAI's) formulas."""
        places = _penalized(requests)
        for begin in range(0, len(places), CHUNK_ROWS):
            part = places[begin : begin + CHUNK_ROWS]
            index = upload(part, torch.int64, self._device)
            x = logits.index_select(0, index)
            self._penalize(x, [requests[i] for i in part])
            logits.index_copy_(0, index, x)

    def count(self, tokens: Tensor, requests: Sequence[Request]) -> None:
        """Count the tokens [R] that were just sampled."""
        pairs = [(i, requests[i].row) for i in _penalized(requests)]
        if not pairs:
            return
        index, rows = upload(pairs, torch.int64, self._device).unbind(1)
        places = rows * self._output_counts.shape[1] + tokens.index_select(0, index)
        self._output_counts.view(-1).index_add_(0, places, torch.ones_like(places, dtype=torch.int32))

    def _penalize(self, x: Tensor, requests: Sequence[Request]) -> None:
        """Change the logits [R, V] of requests that all use penalties, with as few other tensors as can be."""
        columns = [
            [p.repetition_penalty, p.frequency_penalty, p.presence_penalty] for p in (r.params for r in requests)
        ]
        repetition, frequency, presence = upload(columns, torch.float32, self._device)[:, :, None].unbind(1)
        rows = upload([request.row for request in requests], torch.int64, self._device)
        counts = self._output_counts.index_select(0, rows)
        factor = torch.where(self._in_prompt.index_select(0, rows) | (counts > 0), repetition, 1.0)
        positive, divided = x > 0, x / factor
        torch.where(positive, divided, x.mul_(factor), out=x)
        del factor, divided
        x -= frequency * counts
        x -= presence * (counts > 0)

    def _allocate(self) -> None:
        """Rows are cleared as they are used."""
        if not len(self._output_counts):
            shape = (self._num_rows, self._output_counts.shape[1])
            self._output_counts = self._output_counts.new_empty(shape)
            self._in_prompt = self._in_prompt.new_empty(shape)


def _penalized(requests: Sequence[Request]) -> list[int]:
    """Which of the requests use penalties."""
    return [i for i, request in enumerate(requests) if request.params.has_penalties]
