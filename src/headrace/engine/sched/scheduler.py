"""Which requests compute how many tokens in the next step, and what becomes of them afterwards.

Every step is planned anew under one token budget: first each running sequence that has one token to compute, then
running prefills in order, then waiting requests in order as long as rows, budget and blocks allow. When blocks run
out, the sequence that comes last is preempted: its blocks are freed and it waits to be recomputed. One sequence of
the longest allowed length always fits the cache, so whoever comes first can always go on.

Sequences that decode are `Decoding`: they are in each step without being planned. What follows of a running sequence
is of those that are not, because they prefill, or need a block, or make their last token.

A plan may be made before the tokens of earlier steps are read. What a step in flight touches is not given back
before that step is committed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.engine.kv.manager import KVManager
from headrace.engine.request import Request, State
from headrace.engine.sched.decoding import MAX_END_TOKENS, Decoding
from headrace.engine.sched.plan import Decodes, Draft, PlannedRow, StepPlan
from headrace.engine.sched.queue import RequestQueue

_STEPS_IN_FLIGHT = 8
"""More than there are, by whose tokens a sequence's own may be behind."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Per step: sequences, tokens, and whether a prompt may be cut into chunks."""

    max_num_seqs: int
    max_num_batched_tokens: int
    enable_chunked_prefill: bool = True


class Scheduler:
    """Owns every request from `add` until it is finished and no step in flight refers to it."""

    def __init__(self, kv: KVManager, limits: Limits) -> None:
        self.kv = kv
        self.limits = limits
        self.waiting = RequestQueue()
        self.running = RequestQueue()
        self.num_preemptions = 0
        self._requests: dict[int, Request] = {}
        self._free_rows = _all_rows(limits)
        self._decoding = self._no_decoding()

    @property
    def has_work(self) -> bool:
        """Whether any request waits or runs."""
        return bool(self.waiting) or bool(self.running)

    @property
    def num_held(self) -> int:
        """Requests that wait for their prompt to be computed by the one that they will be forked from."""
        parents = (request for queue in (self.waiting, self.running) for request in queue if request.children)
        return sum(child.state is State.HELD for parent in parents for child in parent.children)

    @property
    def num_waiting_tokens(self) -> int:
        """Tokens that the waiting requests have to compute before they make one."""
        return sum(request.num_tokens - request.num_computed for request in self.waiting)

    def add(self, request: Request, *, children: Iterable[Request] = ()) -> None:
        """Queue a request. `children` have the same prompt; they are forked off once it is computed."""
        self._requests[request.uid] = request
        self.waiting.add(request)
        for child in children:
            child.state = State.HELD
            self._requests[child.uid] = child
            request.children.append(child)

    def fork(self, parent: Request, child: Request) -> None:
        """Queue a request that begins with the tokens of `parent`, which is finished and has kept its blocks."""
        self.kv.fork(parent, child, min(parent.num_computed, len(child.tokens) - 1))
        self._requests[child.uid] = child
        self.waiting.add(child)

    def release(self, request: Request) -> None:
        """Give back the blocks that a finished request kept."""
        request.keep_blocks = False
        self._settle(request)

    def abort(self, uid: int) -> None:
        """End a request in whatever state it is. Unknown and finished ones are no error: aborts may come late."""
        request = self._requests.get(uid)
        if request is not None and request.state is not State.FINISHED:
            request.keep_blocks = False
            self._promote_child(request)
            self.finish(request)

    def finish(self, request: Request) -> None:
        """End a request; what it holds goes back now, or when the last step in flight that has it is committed."""
        self._decoding.leave(request)
        if request.state is State.RUNNING:
            self.running.remove(request)
        elif request.state is State.WAITING:
            self.waiting.remove(request)
        request.state = State.FINISHED
        self._settle(request)

    def reset(self) -> None:
        """Forget every request, and the content of every block."""
        self.kv.reset()
        self.waiting, self.running, self._requests = RequestQueue(), RequestQueue(), {}
        self._free_rows = _all_rows(self.limits)
        self._decoding = self._no_decoding()

    def schedule(self) -> StepPlan:
        """Plan the next step. An empty plan means that nothing can be done before a step in flight is committed."""
        self._decoding.leave_due()
        draft = Draft(self.limits.max_num_batched_tokens - len(self._decoding.rows))
        self._plan_running(draft)
        if not draft.out_of_blocks:
            self._plan_waiting(draft)
        decodes = Decodes(*self._decoding.plan(), self._decoding.owner)
        for row in draft.rows.values():
            self._note_planned(row)
        return StepPlan(list(draft.rows.values()), draft.admitted, self.kv.take_copies(), decodes)

    def commit_decodes(
        self, plan: StepPlan, tokens: NDArray[np.int32], excepted: Sequence[int] = ()
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Append the tokens [D] of a launched step's decodes, where nothing else is to be done: where, and whose.

        The others, and those at `excepted` places, are to be committed one by one.
        """
        return self._decoding.commit(plan.decodes.rows, tokens, excepted)

    def commit(self, row: PlannedRow, token: int | None) -> bool:
        """Note that a launched row is done, and append its token; False if its request does not run any more."""
        request = row.request
        if request.decoding:
            self._decoding.commit_one(request)
        else:
            request.steps_in_flight -= 1
            request.num_unread -= row.samples
        if request.state is State.FINISHED:
            self._settle(request)
            return False
        if token is not None:
            request.tokens.append(token)
        self.kv.remember(request, row.end)
        if request.children and row.end >= request.num_prompt:
            self._fork_children(request)
        return True

    def _note_planned(self, row: PlannedRow) -> None:
        """Count a row as launched; from the next step on its request decodes in columns, if it can."""
        request = row.request
        request.num_computed = row.end
        request.num_unread += row.samples
        request.steps_in_flight += 1
        if row.samples and not request.bad_words_token_ids and len(request.end_token_ids) <= MAX_END_TOKENS:
            until = min(self.kv.capacity(request), request.max_total_tokens - 2)
            if row.known < until:
                self._decoding.enter(request, until)

    def _no_decoding(self) -> Decoding:
        return Decoding(self.limits.max_num_seqs, self.kv.block_size + _STEPS_IN_FLIGHT)

    def _plan_running(self, draft: Draft) -> None:
        """Plan the running requests, decodes first, so that no long prefill makes them wait."""
        prefills: list[Request] = []
        for request in [each for each in self.running if not each.decoding]:
            count = request.num_to_compute
            if count > 1:
                prefills.append(request)
            elif count == 1:
                self._plan_row(request, 1, draft)
        for request in prefills:
            if draft.budget == 0:
                break
            self._plan_row(request, min(request.num_to_compute, draft.budget), draft)

    def _plan_row(self, request: Request, count: int, draft: Draft) -> None:
        """Plan tokens of a running request, if it still runs and there is room for them."""
        if request.state is not State.RUNNING or request.uid in draft.held:
            return
        num_tokens = request.num_computed + count
        if self.kv.allocate(request, num_tokens) or self._make_room(request, num_tokens, draft):
            draft.plan(request, count)

    def _plan_waiting(self, draft: Draft) -> None:
        """Admit waiting requests in order; the first that cannot be admitted ends it, so that none is overtaken."""
        while self.waiting and self._free_rows and draft.budget > 0:
            request = self.waiting.first
            if not request.blocks:
                self.kv.match_prefix(request)
            count = min(request.num_to_compute, draft.budget)
            alone = not draft.rows and not len(self._decoding.rows)
            if count < request.num_to_compute and not self.limits.enable_chunked_prefill and not alone:
                break
            if not self._fits(request):
                self.kv.free(request)
                if self.running or not self._drop_holds():
                    break
                continue
            self.kv.allocate(request, request.num_computed + count)
            self._admit(request, draft)
            draft.plan(request, count)

    def _fits(self, request: Request) -> bool:
        """Whether all that a waiting request has to compute fits, with a reserve for those that run to grow into."""
        reserve = max(1, self.kv.pool.num_blocks // 100) if self.running else 0
        return self.kv.blocks_missing(request, request.num_tokens) <= self.kv.pool.num_free - reserve

    def _admit(self, request: Request, draft: Draft) -> None:
        self.kv.count_match(request)
        self.waiting.remove(request)
        request.state = State.RUNNING
        request.row = self._free_rows.pop()
        self.running.add(request)
        self._decoding.admit(request)
        draft.admitted.append(request)

    def _make_room(self, request: Request, num_tokens: int, draft: Draft) -> bool:
        """Allocate for a running request, at the cost of those that come after it; False if it must wait itself."""
        while not self.kv.allocate(request, num_tokens):
            if self._drop_holds():
                continue
            draft.out_of_blocks = True
            victim = self.running.last
            if victim.decoding:
                self._decoding.leave(victim)
                draft.budget += 1
            if victim.steps_in_flight:
                draft.hold(victim)  # so that it can be preempted once the steps that have it are committed
                return False
            self._preempt(victim, draft)
            if victim is request:
                return False
        return True

    def _preempt(self, request: Request, draft: Draft) -> None:
        """Free all that a running request holds; it is computed again when its turn comes."""
        draft.drop(request)
        self.kv.remember(request, request.num_computed)  # the block that the next token would have followed
        self.kv.free(request)
        self.running.remove(request)
        self._free_rows.append(request.row)
        request.row = -1
        request.state = State.WAITING
        request.num_preemptions += 1
        self.num_preemptions += 1
        self.waiting.add(request)

    def _drop_holds(self) -> bool:
        """Free what waiting requests hold since they were forked; whether there was anything."""
        holders = [request for request in self.waiting if request.blocks]
        for request in holders:
            self.kv.free(request)
        return bool(holders)

    def _fork_children(self, parent: Request) -> None:
        """Queue the children of a request whose prompt is computed; each computes the prompt's last token again."""
        for child in parent.children:
            if child.state is State.HELD:
                self.kv.fork(parent, child, parent.num_prompt - 1)
                child.state = State.WAITING
                self.waiting.add(child)
        parent.children = []
        self._decoding.leave(parent)  # the block that it writes to is shared now

    def _promote_child(self, parent: Request) -> None:
        """Let the first child take the place of a parent that ends before its prompt is computed."""
        children = [child for child in parent.children if child.state is State.HELD]
        parent.children = []
        if children:
            heir, *heir.children = children
            heir.state = State.WAITING
            self.waiting.add(heir)

    def _settle(self, request: Request) -> None:
        """Take back what a finished request holds, unless a step in flight still refers to it."""
        if request.steps_in_flight:
            return
        if request.row >= 0:
            self._free_rows.append(request.row)
            request.row = -1
        if not request.keep_blocks:
            self.kv.free(request)
            self._requests.pop(request.uid, None)


def _all_rows(limits: Limits) -> list[int]:
    """Every row, the lowest to be taken first."""
    return list(range(limits.max_num_seqs - 1, -1, -1))
