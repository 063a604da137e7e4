"""Copies on write when memory is short: in any order, so none reads what another writes."""

from headrace.core.sampling_params import SamplingParams
from headrace.engine.kv.manager import KVManager
from headrace.engine.request import Request

BLOCK_SIZE = 4


def pair(kv: KVManager, length: int) -> tuple[Request, Request]:
    """A sequence of so many tokens, and its fork, whose next token goes to a block that both hold."""
    parent, child = (
        Request(uid, [1] * (length + 1), SamplingParams(), 99, frozenset(), num_prompt=length, seed=0, key=(0, uid, 0))
        for uid in range(2)
    )
    assert kv.allocate(parent, length)
    parent.num_computed = length
    kv.fork(parent, child, length)
    return parent, child


def test_a_block_that_is_still_to_be_copied_is_no_target() -> None:
    kv = KVManager(4, BLOCK_SIZE)
    (first, preempted), (later, _) = pair(kv, 6), pair(kv, 2)
    assert kv.allocate(first, 7)
    kv.free(preempted)
    assert kv.pool.num_free == 1
    assert not kv.allocate(later, 3), "the free block is what the first sequence's copy reads"
    assert kv.take_copies() == [(1, 3)]
    assert kv.allocate(later, 3)
    assert kv.take_copies() == [(2, 1)]


def test_another_free_block_is_taken_instead() -> None:
    kv = KVManager(5, BLOCK_SIZE)
    (first, preempted), (later, _) = pair(kv, 6), pair(kv, 2)
    assert kv.allocate(first, 7)
    kv.free(preempted)
    assert kv.allocate(later, 3)
    assert kv.take_copies() == [(1, 3), (2, 4)]
    assert kv.pool.num_free == 1
