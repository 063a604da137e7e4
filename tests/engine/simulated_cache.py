"""A KV cache that holds token ids instead of keys and values, so that what a step would read can be checked."""

from collections import deque
from collections.abc import Callable

import numpy as np

from headrace.engine.kv.manager import KVManager
from headrace.engine.request import Request, State
from headrace.engine.sched.plan import StepPlan
from headrace.engine.sched.scheduler import Limits, Scheduler

NextToken = Callable[[list[int]], int]


class Simulation:
    """A scheduler whose steps are carried out on the simulated cache, `depth` of them in flight."""

    def __init__(self, num_blocks: int, block_size: int, limits: Limits, depth: int, next_token: NextToken) -> None:
        self.kv = KVManager(num_blocks, block_size)
        self.scheduler = Scheduler(self.kv, limits)
        self.limits = limits
        self.depth = depth
        self.cache: dict[int, list[int | None]] = {}
        self.in_flight: deque[tuple[StepPlan, dict[int, int]]] = deque()
        self.truth: dict[int, list[int]] = {}
        self.next_token = next_token
        self.block_size = block_size
        self.steps = 0

    def add(self, request: Request, children: list[Request] | None = None) -> None:
        for each in (request, *(children or [])):
            self.truth[each.uid] = list(each.tokens)
        self.scheduler.add(request, children=children or [])

    def step(self) -> StepPlan:
        plan = self.scheduler.schedule()
        for row in (row for launched, _ in self.in_flight for row in launched.rows):
            assert len(row.request.blocks) * self.block_size >= row.end, "given back while a step in flight has it"
        self.steps += 1
        if plan.rows:
            self.in_flight.append((plan, self._execute(plan)))
        if self.in_flight and (len(self.in_flight) == self.depth or not plan.rows):
            self._commit(*self.in_flight.popleft())
        return plan

    def run(self, max_steps: int = 5_000) -> None:
        while self.scheduler.has_work or self.in_flight:
            self.step()
            assert self.steps < max_steps, "the scheduler makes no progress"

    def _execute(self, plan: StepPlan) -> dict[int, int]:
        assert plan.num_tokens <= self.limits.max_num_batched_tokens
        assert len(plan.rows) <= self.limits.max_num_seqs
        assert len({row.request.row for row in plan.rows}) == len(plan.rows)
        assert {source for source, _ in plan.copies}.isdisjoint(target for _, target in plan.copies)
        read = [self.cache.get(source, [None] * self.block_size) for source, _ in plan.copies]
        for (_, target), content in zip(plan.copies, read, strict=True):
            self.cache[target] = list(content)
        written: set[tuple[int, int]] = set()
        for row in plan.rows:
            assert row.count > 0
            for position in range(row.start, row.end):
                slot = (row.request.blocks[position // self.block_size], position % self.block_size)
                assert slot not in written, "two rows write the same slot"
                written.add(slot)
                self.cache.setdefault(slot[0], [None] * self.block_size)[slot[1]] = self.truth[row.request.uid][
                    position
                ]
        return {row.request.uid: self._read(row.request, row.end) for row in plan.rows if row.samples}

    def _read(self, request: Request, end: int) -> int:
        """What attention would see must be the sequence itself; the token that follows from it."""
        truth = self.truth[request.uid]
        blocks = [self.cache[block] for block in request.blocks]
        seen = [blocks[position // self.block_size][position % self.block_size] for position in range(end)]
        assert seen == truth[:end], "a sequence reads keys that are not its own"
        token = self.next_token(truth[:end])
        truth.append(token)
        return token

    def _commit(self, plan: StepPlan, tokens: dict[int, int]) -> None:
        made = [tokens[row.request.uid] for row in plan.rows[: len(plan.decodes)]]
        taken, uids = self.scheduler.commit_decodes(plan, np.array(made, np.int32))
        assert [row.request.uid for row, was in zip(plan.rows, taken, strict=False) if was] == uids.tolist()
        apart = [row for row, was in zip(plan.rows, taken, strict=False) if not was]
        for row in apart + plan.single:
            request = row.request
            if self.scheduler.commit(row, tokens.get(request.uid)):
                if row.samples and len(request.tokens) >= request.max_total_tokens:
                    self.scheduler.finish(request)
            elif request.state is State.FINISHED:
                self.truth.pop(request.uid, None)
