"""Logprobs of the tokens of a prompt, from the hidden states of the step that computes it."""

import torch
from torch import Tensor

from headrace.engine.run.model import Model
from headrace.engine.sample.logprobs import CHUNK_ROWS, LogprobTensors, compute_logprobs
from headrace.engine.sample.transfer import upload
from headrace.engine.sched.plan import PlannedRow

RowLogprobs = tuple[PlannedRow, LogprobTensors]


def prompt_logprobs(model: Model, row: PlannedRow, hidden: Tensor) -> list[RowLogprobs]:
    """Of the prompt tokens that follow the row's positions, whose hidden states are `hidden` [count, H].

    A bounded number of logits is made at a time.
    """
    request = row.request
    if request.params.prompt_logprobs is None:
        return []
    first, last = max(row.start, len(request.prompt_logprobs) - 1), min(row.end, request.num_prompt - 1)
    parts = []
    for begin in range(first, last, CHUNK_ROWS):
        end = min(begin + CHUNK_ROWS, last)
        targets = upload(request.tokens[begin + 1 : end + 1], torch.int64, hidden.device)
        logits = model.logits(hidden[begin - row.start : end - row.start]).float()
        logprobs = compute_logprobs(logits, targets, request.params.prompt_logprobs or 0)
        parts.append((row, logprobs.on_host()))
    return parts
