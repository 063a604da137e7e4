"""An engine on a bigram table: the next token's logits depend on the last token alone, so answers are known."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from headrace.core.limits import ModelLimits
from headrace.core.sampling_params import SamplingParams
from headrace.engine.engine import Engine
from headrace.engine.kv.manager import KVManager
from headrace.engine.run.device.build import device_runner
from headrace.engine.run.make import direct_runner
from headrace.engine.run.model import LoadedModel
from headrace.engine.sched.scheduler import Limits, Scheduler
from headrace.kernels.ops import HeadShape, LayerCache, StepBatch, kv_cache
from headrace.kernels.torch_ops import TorchOps
from headrace.wire.messages import FINISH_REASONS, AddRequest

VOCAB_SIZE = 32
CPU = torch.device("cpu")
GPU = torch.device("cuda") if torch.cuda.is_available() else None


class BigramModel:
    """The next token's logits depend on the last token alone: row `token` of `table` [V, V]."""

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.forward_calls = 0

    def forward(self, token_ids: Tensor, batch: StepBatch, caches: Sequence[LayerCache]) -> Tensor:
        self.forward_calls += 1
        return token_ids[:, None].float()

    def logits(self, hidden: Tensor) -> Tensor:
        return self.table[hidden.squeeze(-1).long()].clone()


class Answer:
    """What one sequence got: tokens, logprobs, and how it ended."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.logprobs: list[object] = []
        self.prompt_logprobs: object = None
        self.finish: str | None = None
        self.stop_token: int | None = None


class BigramEngine:
    """An engine on a bigram table, driven by hand."""

    def __init__(
        self,
        table: Tensor,
        *,
        max_num_seqs: int = 64,
        budget: int = 64,
        depth: int = 1,
        num_blocks: int = 256,
        prefix_caching: bool = True,
        on_device: bool = False,
    ) -> None:
        self._device = (on_device and GPU) or CPU
        self.model = BigramModel(table.to(self._device))
        kv = KVManager(num_blocks, 8, enable_prefix_caching=prefix_caching)
        heads = HeadShape(1, 1, 8)
        caches = kv_cache(1, num_blocks, 8, heads, torch.float32, self._device)
        loaded = LoadedModel(self.model, TorchOps(), caches, heads, 1, torch.float32, 256)
        step_limits = Limits(max_num_seqs, budget)
        make = device_runner if on_device else direct_runner
        runner = make(loaded, len(table), step_limits)
        limits = ModelLimits(256, len(table), max_logprobs=len(table))
        self.engine = Engine(Scheduler(kv, step_limits), runner, limits, steps_in_flight=depth)
        self._uid = 0
        self.steps = 0

    def add(self, prompt: list[int], params: SamplingParams, *, eos: int | None = None, **extra: object) -> list[int]:
        uids = [self._uid + i for i in range(params.n)]
        self._uid += params.n
        self.engine.add(AddRequest(uids, prompt, params, [] if eos is None else [eos], **extra))
        return uids

    def run(self) -> dict[int, Answer]:
        found: dict[int, Answer] = {}
        while self.engine.has_work:
            with no_waiting(self._device):
                output = self.engine.step()
            self.steps += 1
            for i, (uid, token, finish, stop) in enumerate(output.rows() if output else ()):
                sequence = found.setdefault(uid, Answer())
                sequence.tokens.append(token)
                sequence.finish = FINISH_REASONS[finish]
                sequence.stop_token = None if stop < 0 else stop
                if output.logprobs:
                    sequence.logprobs.append(output.logprobs[i])
                if uid in output.prompt_logprobs:
                    sequence.prompt_logprobs = output.prompt_logprobs[uid]
        return found

    def one(self, prompt: list[int], params: SamplingParams, **extra: object) -> Answer:
        [uid] = self.add(prompt, params, **extra)
        return self.run()[uid]


@contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """On a GPU: whatever would make the host wait for it, but for an event, is an error."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    yield
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("default")
