"""Presence, frequency and repetition penalties over the tokens that a sequence has so far."""

from collections.abc import Sequence

import torch
from torch import Tensor

from headrace.engine.request import Request


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
        tokens = torch.tensor(request.tokens, device=self._device)
        prompt, output = tokens[: request.num_prompt], tokens[request.num_prompt :]
        self._in_prompt[slot] = False
        self._in_prompt[slot, prompt] = True
        self._output_counts[slot] = torch.bincount(output, minlength=self._output_counts.shape[1]).int()

    def apply(self, logits: Tensor, requests: Sequence[Request]) -> None:
        """Change the logits [R, V] of the rows that use penalties, in place, by vLLM's (and OpenAI's) formulas."""
        index = [i for i, request in enumerate(requests) if request.params.has_penalties]
        if not index:
            return
        params = [requests[i].params for i in index]
        slots = self._slots([requests[i] for i in index])
        counts, x = self._output_counts[slots], logits[index]
        repetition = self._column([p.repetition_penalty for p in params])
        factor = torch.where(self._in_prompt[slots] | (counts > 0), repetition, 1.0)
        x = torch.where(x > 0, x / factor, x * factor)
        x -= self._column([p.frequency_penalty for p in params]) * counts
        x -= self._column([p.presence_penalty for p in params]) * (counts > 0)
        logits[index] = x

    def count(self, tokens: Tensor, requests: Sequence[Request]) -> None:
        """Count the tokens [R] that were just sampled."""
        index = [i for i, request in enumerate(requests) if request.params.has_penalties]
        if index:
            self._output_counts[self._slots([requests[i] for i in index]), tokens[index]] += 1

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

    def _slots(self, requests: Sequence[Request]) -> Tensor:
        return torch.tensor([self._slot_of_row[request.row] for request in requests], device=self._device)

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)[:, None]
