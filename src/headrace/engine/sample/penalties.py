"""Presence, frequency and repetition penalties over the tokens that a sequence has so far."""

from collections.abc import Sequence

import torch
from torch import Tensor

from headrace.engine.request import Request
from headrace.engine.sample.transfer import upload


class Penalties:
    """Token counts of the rows that use a penalty, on the device; slots are allocated as rows need them."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._device = device
        self._output_counts = torch.zeros(0, vocab_size, dtype=torch.int32, device=device)
        self._in_prompt = torch.zeros(0, vocab_size, dtype=torch.bool, device=device)
        self._slot_of_row: dict[int, int] = {}

    def add(self, request: Request) -> None:
        """Count the tokens that an admitted request already has; a row without penalties gives up its slot."""
        if not request.params.has_penalties:
            self._slot_of_row.pop(request.row, None)
            return
        slot = self._slot(request.row)
        tokens = upload(request.tokens, torch.int64, self._device)
        prompt, output = tokens[: request.num_prompt], tokens[request.num_prompt :]
        self._in_prompt[slot].zero_().index_fill_(0, prompt, True)
        self._output_counts[slot].zero_().index_add_(0, output, torch.ones_like(output, dtype=torch.int32))

    def apply(self, logits: Tensor, requests: Sequence[Request]) -> None:
        """Change the logits [R, V] of the rows that use penalties, in place, by vLLM's (and OpenAI's) formulas."""
        index, slots = self._penalized(requests)
        if index is None or slots is None:
            return
        params = [request.params for request in requests if request.params.has_penalties]
        columns = [[p.repetition_penalty, p.frequency_penalty, p.presence_penalty] for p in params]
        repetition, frequency, presence = upload(columns, torch.float32, self._device)[:, :, None].unbind(1)
        counts, x = self._output_counts.index_select(0, slots), logits.index_select(0, index)
        factor = torch.where(self._in_prompt.index_select(0, slots) | (counts > 0), repetition, 1.0)
        x = torch.where(x > 0, x / factor, x * factor)
        x -= frequency * counts
        x -= presence * (counts > 0)
        logits.index_copy_(0, index, x)

    def count(self, tokens: Tensor, requests: Sequence[Request]) -> None:
        """Count the tokens [R] that were just sampled."""
        index, slots = self._penalized(requests)
        if index is not None and slots is not None:
            places = slots * self._width + tokens.index_select(0, index)
            self._output_counts.view(-1).index_add_(0, places, torch.ones_like(places, dtype=torch.int32))

    def _penalized(self, requests: Sequence[Request]) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Which of the requests use penalties, and their slots."""
        pairs = [(i, self._slot_of_row[r.row]) for i, r in enumerate(requests) if r.params.has_penalties]
        if not pairs:
            return None, None
        index, slots = upload(pairs, torch.int64, self._device).unbind(1)
        return index, slots

    def _slot(self, row: int) -> int:
        if row not in self._slot_of_row:
            used = set(self._slot_of_row.values())
            slot = next(i for i in range(len(used) + 1) if i not in used)
            if slot >= len(self._output_counts):
                self._grow(max(4, 2 * len(self._output_counts)))
            self._slot_of_row[row] = slot
        return self._slot_of_row[row]

    def _grow(self, num_slots: int) -> None:
        more = num_slots - len(self._output_counts)
        self._output_counts = torch.cat((self._output_counts, self._output_counts.new_zeros(more, self._width)))
        self._in_prompt = torch.cat((self._in_prompt, self._in_prompt.new_zeros(more, self._width)))

    @property
    def _width(self) -> int:
        return self._output_counts.shape[1]
