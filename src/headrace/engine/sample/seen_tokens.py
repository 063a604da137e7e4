"""What rows with a penalty have seen of each token, on the device, where the sampling kernels read and count it."""

import torch
from torch import Tensor

from headrace.engine.request import Request
from headrace.engine.sample.transfer import upload
from headrace.kernels.gpu.sampling_workspace import COUNTED, IN_PROMPT


class SeenTokens:
    """`memory` int16 [num_rows, vocab_size]: how often each token was put out, plus IN_PROMPT if the prompt has it.

    It is there from the beginning, since captured steps refer to it. A row is written when a request that has a penalty
    gets it, and not read for others.
    """

    def __init__(self, num_rows: int, vocab_size: int, device: torch.device) -> None:
        self.memory: Tensor = torch.zeros(num_rows, vocab_size, dtype=torch.int16, device=device)

    def add(self, request: Request) -> None:
        """Count the tokens that a request already has which has just got its row, without waiting for the device."""
        if not request.params.has_penalties:
            return
        row = self.memory[request.row]
        tokens = upload(request.tokens, torch.int64, row.device)
        prompt, output = tokens[: request.num_prompt], tokens[request.num_prompt :]
        counts = torch.zeros(len(row), dtype=torch.int32, device=row.device)
        counts.index_add_(0, output, torch.ones_like(output, dtype=torch.int32)).clamp_max_(COUNTED)
        row.zero_().index_fill_(0, prompt, IN_PROMPT).add_(counts.to(torch.int16))
