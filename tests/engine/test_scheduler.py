"""Properties of scheduler, block pool and prefix cache together, on a cache whose content can be checked."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_cache import Simulation

from headrace.core.sampling_params import SamplingParams
from headrace.engine.request import Request
from headrace.engine.sched.scheduler import Limits

BLOCK_SIZE = 4
PARAMS = SamplingParams()


def next_token(tokens: list[int]) -> int:
    return sum(tokens) % 3


def request(uid: int, prompt: list[int], output: int, priority: int = 0) -> Request:
    return Request(
        uid=uid, tokens=list(prompt), params=PARAMS, max_total_tokens=len(prompt) + output, key=(priority, uid, 0)
    )


prompts = st.lists(st.integers(0, 1), min_size=1, max_size=24)
arrivals = st.lists(
    st.tuples(prompts, st.integers(1, 16), st.integers(0, 2), st.integers(1, 3), st.integers(0, 6)),
    min_size=1,
    max_size=14,
)


@settings(max_examples=150, deadline=None)
@given(
    arrivals=arrivals,
    spare_blocks=st.integers(0, 20),
    max_num_seqs=st.integers(1, 6),
    budget=st.integers(6, 40),
    depth=st.integers(1, 3),
    chunked=st.booleans(),
    aborts=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 50)), max_size=8),
)
def test_every_request_ends_right_and_everything_is_given_back(
    arrivals: list[tuple[list[int], int, int, int, int]],
    spare_blocks: int,
    max_num_seqs: int,
    budget: int,
    depth: int,
    chunked: bool,
    aborts: list[tuple[int, int]],
) -> None:
    """Whatever arrives, is forked, preempted or aborted: the budget holds, no slot is written by two rows, every
    sequence reads its own keys, all end, and no block, row or request is left. The cache is as small as it may be."""
    longest = max(-(-(len(prompt) + output) // BLOCK_SIZE) for prompt, output, *_ in arrivals)
    limits = Limits(max_num_seqs, budget, enable_chunked_prefill=chunked or budget >= 40)
    simulation = Simulation(longest + spare_blocks, BLOCK_SIZE, limits, depth, next_token)
    finished: list[Request] = []
    uid = 0
    for prompt, output, priority, n, pause in arrivals:
        group = [request(uid + i, prompt, output, priority) for i in range(n)]
        uid += n
        simulation.add(group[0], group[1:])
        finished += group
        for _ in range(pause):
            simulation.step()
            for step, victim in aborts:
                if step == simulation.steps:
                    simulation.scheduler.abort(victim)
    simulation.run()
    scheduler = simulation.scheduler
    assert simulation.kv.pool.num_free == simulation.kv.pool.num_blocks
    assert scheduler._requests == {} and sorted(scheduler._free_rows) == list(range(max_num_seqs))
    aborted = {victim for _, victim in aborts}
    for each in finished:
        if each.uid not in aborted:
            assert len(each.tokens) == each.max_total_tokens
            for end in range(each.num_prompt, len(each.tokens)):
                assert each.tokens[end] == next_token(each.tokens[:end])


def test_decodes_share_every_step_with_a_prefill() -> None:
    """A long prompt is computed in chunks beside the sequences that decode: none of them misses a step."""
    simulation = Simulation(64, BLOCK_SIZE, Limits(8, 8), 1, next_token)
    short = [request(uid, [uid], 20) for uid in range(3)]
    for each in short:
        simulation.add(each)
    simulation.step()
    simulation.add(request(9, [1] * 40, 4))
    for made in range(2, 10):
        plan = simulation.step()
        assert {row.request.uid: row.count for row in plan.rows} == {0: 1, 1: 1, 2: 1, 9: 5}
        assert all(row.known == row.request.num_prompt + made - 1 for row in plan.rows if row.request in short)


def test_a_prefill_takes_back_what_a_later_decode_was_just_given() -> None:
    """A decode is planned first; if a prefill that goes before it needs its blocks, it is taken out of the plan."""
    simulation = Simulation(10, BLOCK_SIZE, Limits(2, 3), 1, next_token)
    decoding, prefilling = request(1, [1] * 3, 24, priority=1), request(2, [0] * 32, 4)
    simulation.add(decoding)
    simulation.step()
    simulation.add(prefilling)
    simulation.run()
    assert decoding.num_preemptions > 0 and prefilling.num_preemptions == 0


def test_waiting_forks_do_not_starve_what_must_run() -> None:
    """Sequences that wait hold their parent's blocks; they let go of them when nothing else could run."""
    simulation = Simulation(4, BLOCK_SIZE, Limits(1, 64), 1, next_token)
    group = [request(uid, [1] * 6, 2, priority=1) for uid in range(4)]
    simulation.add(group[0], group[1:])
    simulation.step()
    urgent = request(9, [0] * 14, 2)
    simulation.add(urgent)
    simulation.run()
    assert len(urgent.tokens) == 16
    assert all(len(each.tokens) == 8 for each in group)


def test_waiting_forks_give_way_before_anything_is_preempted() -> None:
    """What a waiting sequence holds is cheaper to give up than the work of a running one."""
    simulation = Simulation(4, BLOCK_SIZE, Limits(1, 64), 1, next_token)
    group = [request(uid, [1] * 6, 10) for uid in range(4)]
    simulation.add(group[0], group[1:])
    simulation.run()
    assert simulation.scheduler.num_preemptions == 0


def test_first_come_is_first_served() -> None:
    """A request that does not fit yet is not overtaken by a smaller one that would."""
    simulation = Simulation(12, BLOCK_SIZE, Limits(8, 64), 1, next_token)
    simulation.add(request(0, [0] * 24, 8))
    simulation.step()
    simulation.add(request(1, [1] * 40, 2))
    simulation.add(request(2, [1] * 4, 2))
    while not simulation.scheduler._requests[1].row >= 0:
        plan = simulation.step()
        assert 2 not in {row.request.uid for row in plan.rows if 1 not in {r.request.uid for r in plan.rows}}


def test_priority_decides_who_runs_and_who_is_preempted() -> None:
    """Lower numbers run first; when blocks run out, the highest number gives its own up."""
    simulation = Simulation(12, BLOCK_SIZE, Limits(8, 64), 1, next_token)
    patient = request(0, [0] * 16, 16, priority=5)
    urgent = request(1, [1] * 16, 16, priority=0)
    simulation.add(patient)
    simulation.step()
    simulation.add(urgent)
    simulation.run()
    assert patient.num_preemptions > 0 and urgent.num_preemptions == 0


def test_forks_hold_their_prompt_once() -> None:
    """n sequences of one prompt use its blocks together, and one more each for what they write themselves."""
    simulation = Simulation(64, BLOCK_SIZE, Limits(8, 256), 1, next_token)
    group = [request(uid, [1] * 82, 8) for uid in range(4)]
    simulation.add(group[0], group[1:])
    simulation.step()
    simulation.step()
    held = simulation.kv.pool.num_blocks - simulation.kv.pool.num_free
    assert all(each.row >= 0 for each in group)
    assert held == 20 + 4


def test_cached_prefix_is_not_computed_again() -> None:
    """A prompt seen before costs only what follows its last full block, and the hit is counted."""
    simulation = Simulation(64, BLOCK_SIZE, Limits(8, 256), 1, next_token)
    simulation.add(request(0, [0, 1] * 10, 1))
    simulation.run()
    again = request(1, [0, 1] * 10, 1)
    simulation.add(again)
    plan = simulation.step()
    assert [(row.start, row.count) for row in plan.rows] == [(16, 4)]
    assert again.num_cached == simulation.kv.hits == 16


def test_other_salt_is_another_prefix() -> None:
    """Requests with different hash seeds (tenants, later adapters) never share blocks."""
    simulation = Simulation(64, BLOCK_SIZE, Limits(8, 256), 1, next_token)
    simulation.add(request(0, [0, 1] * 10, 1))
    simulation.run()
    other = request(1, [0, 1] * 10, 1)
    other.hash_seed = simulation.kv.hasher.seed("tenant")
    simulation.add(other)
    assert simulation.step().num_tokens == 20


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_who_has_no_room_waits_for_few_steps(depth: int) -> None:
    """Blocks of 32 tokens for a quarter of what wants to run: the last is left out of steps, and gives up its own."""
    simulation = Simulation(24, 32, Limits(16, 512), depth, next_token)
    for uid in range(30):
        simulation.add(request(uid, [uid % 2] * (7 + uid), 120))
    waited: dict[int, int] = {}
    longest = 0
    while simulation.scheduler.has_work:
        planned = {row.request.uid for row in simulation.step().rows}
        running = [each.uid for each in simulation.scheduler.running]
        waited = {uid: 0 if uid in planned else waited.get(uid, 0) + 1 for uid in running}
        longest = max(longest, max(waited.values(), default=0))
        assert simulation.steps < 5_000
    assert longest <= 3 * depth
