"""A stream that takes up told tokens goes on exactly as the one that was cut would have."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.core.errors import HeadraceError
from headrace.core.outputs import Logprob
from headrace.core.sampling_params import RequestOutputKind, SamplingParams
from headrace.text.stream import RequestStream

KINDS = ("byte_level", "sentencepiece")
PARTS = ["🙂", "👩\u200d👩\u200d👧", "é", "ab", "aab", " ", "\n", "▁"]
TEXTS = st.one_of(st.text(max_size=20), st.lists(st.sampled_from(PARTS), max_size=8).map("".join))
LETTERS = st.text(alphabet="ab.", max_size=40)
STOPS = st.lists(st.text(alphabet="ab.", min_size=1, max_size=5), min_size=1, max_size=4)


def rows(tokenizer, prompt, ids, params, told=(), last="length"):
    """(text, token ids, finish reason, stop reason) of each delta, the last token ending the sequence by length."""
    stream = RequestStream("r", None, prompt, SamplingParams(**params), tokenizer, 0.0, told)
    found = []
    for position, token_id in enumerate(ids, start=1):
        stream.add(0, token_id, last if position == len(ids) else None, None, None, now=1.0)
        choice = stream.output().outputs[0]
        found.append((choice.text, choice.token_ids, choice.finish_reason, choice.stop_reason))
        if stream.finished:
            break
    return found


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), text=TEXTS, stops=st.lists(st.sampled_from(["aab", "b", "🙂é", "abaab", "\n\n"]), max_size=2))
@settings(max_examples=120, deadline=None)
def test_every_cut_continues_as_if_there_were_none(request, kind, data, text, stops):
    """Texts, random ids (half characters, byte runs, specials, ids that are no token), stop strings, min_tokens."""
    tokenizer = request.getfixturevalue(kind)
    ids = tokenizer.encode(text, add_special_tokens=False)
    ids += data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 2), max_size=8))
    prompt = tokenizer.encode("The 🙂")[: data.draw(st.integers(1, 8))]
    params = {
        "output_kind": RequestOutputKind.DELTA,
        "stop": stops,
        "min_tokens": data.draw(st.integers(0, 4)),
        "include_stop_str_in_output": data.draw(st.booleans()),
        "skip_special_tokens": data.draw(st.booleans()),
    }
    whole = rows(tokenizer, prompt, ids, params)
    for cut in range(len(whole)):
        assert rows(tokenizer, prompt, ids[cut:], params, ids[:cut]) == whole[cut:]
    unended = rows(tokenizer, prompt, ids, params, last=None)  # what is pending at an end may complete a stop string
    if unended and unended[-1][3] is not None:
        with pytest.raises(HeadraceError, match="stop string"):
            rows(tokenizer, prompt, [], params, ids[: len(unended)])


@given(text=LETTERS, stops=STOPS)
@example(text="ababab", stops=["abababc", "b."])
@settings(max_examples=200, deadline=None)
def test_what_stop_strings_hold_back_is_held_back_again(byte_level, text, stops):
    ids = byte_level.encode(text)
    params = {"output_kind": RequestOutputKind.DELTA, "stop": stops}
    whole = rows(byte_level, [1], ids, params)
    for cut in range(len(whole)):
        assert rows(byte_level, [1], ids[cut:], params, ids[:cut]) == whole[cut:]


def test_a_whole_output_holds_what_follows(byte_level):
    ids = byte_level.encode("one two three")
    params = SamplingParams(output_kind=RequestOutputKind.FINAL_ONLY, logprobs=0)
    stream = RequestStream("r", None, [1], params, byte_level, 0.0, ids[:3])
    for token_id in ids[3:]:
        stream.add(0, token_id, None, None, {token_id: Logprob(-1.0)}, now=1.0)
    stream.abort("length")
    choice = stream.output().outputs[0]
    assert choice.token_ids == ids[3:]
    assert byte_level.decode(ids[:3]) + choice.text == "one two three"
    assert [list(entry) for entry in choice.logprobs] == [[token_id] for token_id in ids[3:]]
