"""The embedded model in float32: an answer cut after any token and continued is the answer that was not cut.

Engine and text together, in process: tokens, and the text of each of them with its half characters and the beginnings
of stop strings that are held back.
"""

import itertools
from collections.abc import Sequence

import pytest

from headrace import LLM
from headrace.core.sampling_params import RequestOutputKind, SamplingParams
from headrace.text.stream import RequestStream
from headrace.wire.messages import FINISH_REASONS, AddRequest

LENGTH = 22
EMOJI = "🙂🙃🎉👩\u200d👩\u200d👧 日本é"
UIDS = itertools.count(1_000_000)

Delta = tuple[str, list[int], str | None, int | str | None]
"""Text, token ids, finish reason and stop reason of what one token brought."""


def run(llm: LLM, prompt: list[int], params: SamplingParams, told: Sequence[Sequence[int]]) -> list[list[Delta]]:
    """The deltas of one request for each of `told`, all of them side by side."""
    engine, tokenizer, eos = llm._open.engine, llm.get_tokenizer(), list(llm._open.eos_token_ids)
    streams: dict[int, RequestStream] = {}
    deltas: dict[int, list[Delta]] = {}
    for output, uid in zip(told, UIDS, strict=False):
        engine.add(AddRequest([uid], prompt, params, eos, output_token_ids=list(output)))
        streams[uid] = RequestStream("r", None, prompt, params, tokenizer, 0.0, output)
        deltas[uid] = []
    while engine.has_work:
        step = engine.step()
        for uid, token, finish, stop in step.rows() if step else ():
            stream = streams[uid]
            if stream.add(0, token, FINISH_REASONS[finish], None if stop < 0 else stop, None, now=1.0):
                engine.abort([uid])
            if (output := stream.output()) is not None:
                choice = output.outputs[0]
                deltas[uid].append((choice.text, choice.token_ids, choice.finish_reason, choice.stop_reason))
    assert all(stream.finished for stream in streams.values())
    return list(deltas.values())


def emoji_ids(llm: LLM) -> list[int]:
    return sorted(set(llm.get_tokenizer().encode(EMOJI + " so 🙂", add_special_tokens=False)))


CASES = {
    "a count, whose every number may become the stop string": (
        "1, 2, 3, 4, 5,",
        {"temperature": 0, "stop": [", 12", " 13"], "max_tokens": 48},
    ),
    "bytes of emoji, drawn": (f"{EMOJI}{EMOJI}", {"seed": 11, "emoji": True}),
    "emoji as a stop string, penalized": (
        f"{EMOJI} and",
        {"seed": 3, "emoji": True, "stop": ["🙂🎉", "é 日本"], "presence_penalty": 0.5, "repetition_penalty": 1.2},
    ),
    "half a character that ends the prompt": ("so 🎉"[:-1], {"seed": 5, "emoji": True, "half": True}),
    "prose at temperature 1 with stop strings after some tokens": (
        "Once upon a time there was",
        {"seed": 2**63 + 5, "stop": ["\n\n", ". The", "!?"], "min_tokens": 9, "frequency_penalty": 0.2},
    ),
    "truncated sampling and words that are forbidden": (
        "The capital of France",
        {"seed": -4, "top_p": 0.9, "top_k": 40, "min_p": 0.02, "logit_bias": {28: -1.0}},
    ),
}


@pytest.mark.parametrize(("text", "options"), CASES.values(), ids=list(CASES))
def test_every_cut_continues_as_if_there_were_none(llm: LLM, text: str, options: dict[str, object]) -> None:
    options = {"max_tokens": LENGTH, "output_kind": RequestOutputKind.DELTA, **options}
    prompt = llm.get_tokenizer().encode(text)
    if options.pop("half", False):
        prompt += llm.get_tokenizer().encode("🎉")[:-1]
    if options.pop("emoji", False):
        options["allowed_token_ids"] = emoji_ids(llm)
    params = SamplingParams(**options)
    [whole] = run(llm, prompt, params, [[]])
    tokens = [token for _, ids, _, _ in whole for token in ids]
    assert len(whole) == len(tokens) > 8
    found = run(llm, prompt, params, [tokens[:cut] for cut in range(1, len(tokens))])
    assert found == [whole[cut:] for cut in range(1, len(tokens))]


def test_the_cases_are_hard(llm: LLM) -> None:
    """They do what they are for: tokens that bring no text, text that is held back and let out, a stop string."""
    prompt = llm.get_tokenizer().encode("1, 2, 3, 4, 5,")
    params = SamplingParams(temperature=0, stop=[", 12", " 13"], max_tokens=48, output_kind=RequestOutputKind.DELTA)
    [count] = run(llm, prompt, params, [[]])
    assert count[-1][2:] == ("stop", ", 12")
    assert sum(not text for text, *_ in count) > 5
    params = SamplingParams(
        seed=11, allowed_token_ids=emoji_ids(llm), max_tokens=LENGTH, output_kind=RequestOutputKind.DELTA
    )
    [emoji] = run(llm, llm.get_tokenizer().encode(EMOJI * 2), params, [[]])
    assert sum(not text for text, *_ in emoji) > 5 and any(text > "\U0001f000" for text, *_ in emoji)
