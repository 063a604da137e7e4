"""Engine rows become the outputs that a request asked for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.outputs import Logprob
from headrace.core.sampling_params import RequestOutputKind, SamplingParams
from headrace.text.stream import RequestStream

DELTA, FINAL = RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY


def stream(tokenizer, prompt="The capital", **params):
    ids = tokenizer.encode(prompt)
    return RequestStream("r1", prompt, ids, SamplingParams(**{"temperature": 1.0, **params}), tokenizer, 1.0)


def feed(request, ids, *, index=0, finish=None, stop_token=None):
    """Rows for `ids`, the last one with the finish; (outputs after each row, whether a stop string was reported)."""
    outputs, stops = [], []
    for position, token_id in enumerate(ids):
        last = position == len(ids) - 1
        row = (index, token_id, finish if last else None, stop_token if last else None, None)
        stops.append(request.add(*row, now=2.0 + position))
        outputs.append(request.output())
    return outputs, stops


def words(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


@given(
    text=st.text(max_size=30),
    stop=st.text(min_size=1, max_size=3),
    include=st.booleans(),
    kind=st.sampled_from(["byte_level", "sentencepiece"]),
)
@settings(max_examples=150, deadline=None)
def test_the_three_kinds_of_output_agree(request, text, stop, include, kind):
    tokenizer = request.getfixturevalue(kind)
    ids = [*words(tokenizer, text), tokenizer.eos_token_id]
    ends = []
    for output_kind in RequestOutputKind:
        asked = stream(tokenizer, output_kind=output_kind, stop=[stop], include_stop_str_in_output=include)
        outputs = [output for output in feed(asked, ids, finish="stop")[0] if output is not None]
        last = outputs[-1].outputs[0]
        if output_kind == DELTA:
            last.text = "".join(output.outputs[0].text for output in outputs)
            last.token_ids = [token for output in outputs for token in output.outputs[0].token_ids]
        assert outputs[-1].finished
        assert not any(output.finished for output in outputs[:-1]) or last.stop_reason == stop
        ends.append((last.text, last.token_ids, last.finish_reason, last.stop_reason))
    assert ends[0] == ends[1] == ends[2]
    if ends[0][3] == stop:
        assert ends[0][0].endswith(stop) if include else stop not in ends[0][0]


def test_cumulative_output_grows(byte_level):
    request = stream(byte_level)
    ids = words(byte_level, " Paris")
    outputs, _ = feed(request, ids, finish="length")
    assert [output.outputs[0].token_ids for output in outputs] == [ids[: n + 1] for n in range(len(ids))]
    last = outputs[-1]
    assert (last.outputs[0].text, last.outputs[0].finish_reason, last.finished) == (" Paris", "length", True)
    assert (last.request_id, last.prompt, last.prompt_token_ids) == (
        "r1",
        "The capital",
        words(byte_level, "The capital"),
    )
    assert outputs[0].outputs[0].text == byte_level.token_text(ids[0])


def test_delta_is_silent_without_news(byte_level):
    request = stream(byte_level, output_kind=DELTA)
    assert request.output() is None
    feed(request, words(byte_level, "a"))
    assert request.output() is None


def test_final_only_is_silent_until_the_end(byte_level):
    request = stream(byte_level, output_kind=FINAL)
    outputs, _ = feed(request, words(byte_level, "Hello world"), finish="length")
    assert outputs[:-1] == [None] * (len(outputs) - 1)
    assert outputs[-1].outputs[0].text == "Hello world"


@pytest.mark.parametrize(
    ("include", "skip", "text"),
    [(False, True, "a"), (True, True, "a"), (True, False, "a<|im_end|>"), (False, False, "a")],
)
def test_eos_is_a_token_and_shown_only_if_asked_for(byte_level, include, skip, text):
    request = stream(byte_level, include_stop_str_in_output=include, skip_special_tokens=skip)
    ids = [*words(byte_level, "a"), byte_level.eos_token_id]
    output = feed(request, ids, finish="stop")[0][-1].outputs[0]
    assert (output.text, output.token_ids) == (text, ids)
    assert (output.finish_reason, output.stop_reason) == ("stop", None)


def test_a_stop_token_is_the_reason(byte_level):
    ids = words(byte_level, "a.")
    output = feed(stream(byte_level), ids, finish="stop", stop_token=ids[-1])[0][-1].outputs[0]
    assert (output.text, output.finish_reason, output.stop_reason) == ("a", "stop", ids[-1])


def test_a_stop_string_asks_for_an_abort_and_later_rows_are_ignored(byte_level):
    request = stream(byte_level, stop=["world"])
    ids = words(byte_level, "Hello world and more")
    outputs, stops = feed(request, ids, finish="length")
    assert stops.count(True) == 1
    final = outputs[-1].outputs[0]
    assert (final.text, final.finish_reason, final.stop_reason) == ("Hello ", "stop", "world")
    assert len(final.token_ids) == stops.index(True) + 1
    assert request.finished


def test_a_stop_string_in_the_last_token_needs_no_abort(byte_level):
    request = stream(byte_level, stop=["."])
    outputs, stops = feed(request, words(byte_level, "a."), finish="length")
    assert not any(stops)
    assert (outputs[-1].outputs[0].finish_reason, outputs[-1].outputs[0].stop_reason) == ("stop", ".")


def test_stop_strings_are_not_looked_for_before_min_tokens(byte_level):
    ids = words(byte_level, "b.b.b.")
    output = feed(stream(byte_level, stop=["."], min_tokens=3), ids)[0][-1].outputs[0]
    assert output.text.startswith("b.b")
    assert output.stop_reason == "."


def test_text_that_was_held_back_comes_with_the_end(byte_level):
    request = stream(byte_level, stop=["STOP"], output_kind=DELTA)
    outputs, _ = feed(request, words(byte_level, "a ST"))
    assert "".join(output.outputs[0].text for output in outputs) == "a "
    request.add(0, -1, "length", None, None, now=9.0)
    assert request.output().outputs[0].text == "ST"


def test_half_a_character_at_the_end_becomes_a_replacement(byte_level):
    request = stream(byte_level)
    output = feed(request, words(byte_level, "a𓀀")[:-1], finish="length")[0][-1]
    assert output.outputs[0].text == "a\ufffd"


def test_several_sequences_end_one_by_one(byte_level):
    request = stream(byte_level, n=2, output_kind=DELTA)
    feed(request, words(byte_level, "a"), index=1, finish="length")
    assert not request.finished
    request.add(0, words(byte_level, "b")[0], None, None, None, now=5.0)
    output = request.output()
    assert [(part.index, part.text) for part in output.outputs] == [(0, "b")]
    request.abort(now=6.0)
    output = request.output()
    assert [(part.index, part.finish_reason) for part in output.outputs] == [(0, "abort")]
    assert output.finished
    assert request.finished


def test_logprobs_are_decorated_and_summed(byte_level):
    chosen, other = words(byte_level, "a")[0], words(byte_level, "b")[0]
    request = stream(byte_level, logprobs=1, prompt_logprobs=1, output_kind=DELTA)
    row = {chosen: Logprob(-0.5, 1), other: Logprob(-1.5, 2)}
    request.add(0, chosen, None, None, row, cached_tokens=3, prompt_logprobs=[None, {other: Logprob(-2.0, 4)}], now=2.0)
    first = request.output()
    assert first.outputs[0].logprobs == [{chosen: Logprob(-0.5, 1, "a"), other: Logprob(-1.5, 2, "b")}]
    assert (first.prompt_logprobs, first.num_cached_tokens) == ([None, {other: Logprob(-2.0, 4, "b")}], 3)
    request.add(0, other, "length", None, {other: Logprob(-0.25, 1)}, now=3.0)
    second = request.output()
    assert len(second.outputs[0].logprobs) == 1
    assert second.outputs[0].cumulative_logprob == -0.75
    assert second.prompt_logprobs is None


def test_without_detokenizing_there_are_tokens_only(byte_level):
    for tokenizer in (byte_level, None):
        params = SamplingParams(detokenize=tokenizer is None)
        request = RequestStream("r", None, [5], params, tokenizer, 0.0)
        request.add(0, 7, "length", None, None, now=1.0)
        output = request.output().outputs[0]
        assert (output.text, output.token_ids, output.logprobs, output.cumulative_logprob) == ("", [7], None, None)


def test_times_are_told(byte_level):
    request = stream(byte_level)
    ids = words(byte_level, "Hello")
    output = feed(request, ids, finish="length")[0][-1]
    end = 2.0 + len(ids) - 1
    times = output.metrics
    assert (times.arrival_time, times.first_token_time) == (1.0, 2.0)
    assert times.last_token_time == times.finished_time == end


def test_an_earlier_output_does_not_change(byte_level):
    request = stream(byte_level)
    first, second = feed(request, words(byte_level, "Hello")[:2])[0]
    assert len(first.outputs[0].token_ids) == 1
    assert len(second.outputs[0].token_ids) == 2
