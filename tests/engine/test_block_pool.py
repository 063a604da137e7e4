"""The block pool against a plain model of it."""

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.core.errors import HeadraceError
from headrace.engine.kv.block_pool import BlockPool

NUM_BLOCKS = 6


class PoolModel(RuleBasedStateMachine):
    """Holders and names in dictionaries, the reuse order in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(NUM_BLOCKS)
        self.holders: Counter[int] = Counter()
        self.names: dict[int, bytes] = {}
        self.order = list(range(NUM_BLOCKS))

    @precondition(lambda self: self.order)
    @rule()
    def take(self) -> None:
        block = self.pool.take()
        assert block == self.order.pop(0)
        self.names.pop(block, None)
        self.holders[block] = 1

    @rule(block=st.integers(0, NUM_BLOCKS - 1))
    def share(self, block: int) -> None:
        self.pool.share(block)
        self.holders[block] += 1
        if block in self.order:
            self.order.remove(block)

    @rule(block=st.integers(0, NUM_BLOCKS - 1))
    def release(self, block: int) -> None:
        if not self.holders[block]:
            with pytest.raises(HeadraceError, match=f"block {block}"):
                self.pool.release(block)
            return
        self.pool.release(block)
        self.holders[block] -= 1
        if not self.holders[block]:
            self.order.insert(len(self.order) if block in self.names else 0, block)

    @rule(block=st.integers(0, NUM_BLOCKS - 1), name=st.sampled_from([b"a", b"b", b"c"]))
    def remember(self, block: int, name: bytes) -> None:
        if not self.holders[block]:
            return
        self.pool.remember(block, name)
        if block not in self.names and name not in self.names.values():
            self.names[block] = name

    @invariant()
    def agrees(self) -> None:
        assert self.pool.num_free == len(self.order)
        for block in range(NUM_BLOCKS):
            assert self.pool.writable(block) == (self.holders[block] == 1 and block not in self.names)
        for name in (b"a", b"b", b"c"):
            assert self.pool.find(name) == next((b for b, n in self.names.items() if n == name), None)


PoolModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBlockPool = PoolModel.TestCase


def test_an_empty_pool_says_so() -> None:
    pool = BlockPool(1)
    pool.take()
    with pytest.raises(HeadraceError, match="No KV block is free"):
        pool.take()
