"""Accumulators count as prometheus_client's own metrics do, and go on where a source starts again."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as ReferenceHistogram

from headrace.observe.accumulators import Histogram, Number, RestartedCounter

BOUNDS = (0.0005, 0.001, 0.25, 1.0, 20.0)
VALUES = st.lists(st.floats(-1, 1e4) | st.sampled_from(BOUNDS))


@given(VALUES, VALUES)
def test_a_histogram_counts_as_prometheus_clients(alone: list[float], together: list[float]) -> None:
    ours = Histogram(BOUNDS)
    reference = ReferenceHistogram("h", "h", buckets=BOUNDS, registry=CollectorRegistry())
    for value in alone:
        ours.observe(value)
    ours.observe_all(together)
    for value in alone + together:
        reference.observe(value)
    [family] = reference.collect()
    expected = [sample.value for sample in family.samples if sample.name == "h_bucket"]
    assert [sum(ours.counts[: index + 1]) for index in range(len(ours.counts))] == expected
    assert ours.count == len(alone) + len(together)
    assert abs(ours.sum - sum(alone + together)) < 1e-6


@given(st.lists(st.lists(st.integers(0, 5), min_size=1), min_size=1), st.booleans())
def test_a_total_goes_on_over_restarts(lives: list[list[int]], announced: bool) -> None:
    """Each life counts up from zero. A restart that nobody tells of is seen only where the count falls."""
    total = Number()
    counter = RestartedCounter(total)
    for life in lives:
        count = 0
        if announced:
            counter.restart()
        else:
            counter.follow(0)
        for step in life:
            count += step
            counter.follow(count)
    assert total.value == sum(map(sum, lives))
