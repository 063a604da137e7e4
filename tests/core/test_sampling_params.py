"""Sampling parameters: defaults are vLLM's, every value outside its rule is refused with the rule and the fix."""

import math

import msgspec
import pytest

from headrace import BeamSearchParams, HeadraceError, SamplingParams

NAN, INF = math.nan, math.inf


def test_defaults_are_vllms() -> None:
    params = SamplingParams()
    assert (params.n, params.temperature, params.top_p, params.top_k, params.min_p) == (1, 1.0, 1.0, 0, 0.0)
    assert (params.max_tokens, params.min_tokens, params.repetition_penalty) == (16, 0, 1.0)
    assert params.detokenize and params.skip_special_tokens and not params.ignore_eos


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("temperature", -1, "temperature is -1.*between 0 and 10000.*temperature=0"),
        ("temperature", NAN, "temperature is nan.*finite"),
        ("temperature", INF, "temperature is inf.*finite"),
        ("temperature", "hot", "temperature is 'hot'"),
        ("temperature", True, "temperature is True"),
        ("top_p", 0, "top_p is 0.*between 1e-06 and 1"),
        ("top_p", 1.01, "top_p is 1.01"),
        ("top_p", NAN, "top_p is nan"),
        ("top_p", 1e-50, "top_p is 1e-50"),
        ("temperature", 1e39, "temperature is 1e.39"),
        ("repetition_penalty", 1e-40, "repetition_penalty is 1e-40"),
        ("top_k", 10**30, "top_k is 1000"),
        ("min_tokens", 10**30, "min_tokens is 1000"),
        ("top_k", -2, "top_k is -2.*at least 0.*top_k=0 or -1"),
        ("top_k", 1.5, "top_k is 1.5.*integer"),
        ("min_p", -0.1, "min_p is -0.1"),
        ("min_p", 1.1, "min_p is 1.1"),
        ("presence_penalty", 2.5, "presence_penalty is 2.5.*-2.*2"),
        ("frequency_penalty", -2.5, "frequency_penalty is -2.5"),
        ("repetition_penalty", 0, "repetition_penalty is 0.*between 0.01 and 100"),
        ("repetition_penalty", INF, "repetition_penalty is inf"),
        ("n", 0, "n is 0.*between 1 and 16384"),
        ("n", 2.0, "n is 2.0.*integer"),
        ("max_tokens", 0, "max_tokens is 0.*at least 1"),
        ("min_tokens", -1, "min_tokens is -1"),
        ("logprobs", -2, "logprobs is -2.*-1 for the whole vocabulary"),
        ("prompt_logprobs", 1.0, "prompt_logprobs is 1.0"),
        ("seed", 1.5, "seed is 1.5"),
        ("seed", 2**64, "seed is 18446744073709551616"),
        ("stop", [""], "stop is .*none of them empty"),
        ("stop", 5, "stop is 5"),
        ("stop_token_ids", [-1], "stop_token_ids is .*token ids"),
        ("allowed_token_ids", [], "allowed_token_ids is empty"),
        ("allowed_token_ids", ["a"], "allowed_token_ids is"),
        ("logit_bias", {"x": 1.0}, "logit_bias has the key 'x'"),
        ("logit_bias", {1: NAN}, r"logit_bias\[1\] is nan"),
        ("logit_bias", [1], "logit_bias is .*map"),
        ("bad_words", ["", "a"], "bad_words is"),
    ],
)
def test_a_value_outside_its_rule(field: str, value: object, message: str) -> None:
    with pytest.raises(HeadraceError, match=message) as caught:
        SamplingParams(**{field: value})
    assert caught.value.param == field or field == "logit_bias"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens is 5 and max_tokens is 4"),
        ({"n": 2, "temperature": 0}, "n is 2 and temperature is 0.*n=1"),
        ({"stop": "x", "detokenize": False}, "stop is set and detokenize is False"),
    ],
)
def test_contradictions(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(HeadraceError, match=message):
        SamplingParams(**kwargs)


@pytest.mark.parametrize(
    "field",
    ["best_of", "use_beam_search", "guided_json", "guided_regex", "structured_outputs", "logits_processors",
     "truncate_prompt_tokens", "length_penalty", "extra_args", "repetition_detection"],
)  # fmt: skip
def test_fields_that_are_known_and_not_served(field: str) -> None:
    with pytest.raises(HeadraceError, match=f"{field}=7 is not supported"):
        SamplingParams(**{field: 7})
    SamplingParams(**{field: None})


def test_what_older_code_passes_is_mapped() -> None:
    assert SamplingParams(top_k=-1).top_k == 0
    assert SamplingParams(seed=-1).seed is None
    assert SamplingParams(n=2, best_of=2).n == 2
    assert SamplingParams(temperature=0.001).temperature == 0.01
    assert SamplingParams(logit_bias={"5": 300}).logit_bias == {5: 100.0}


def test_greedy_resets_what_it_makes_meaningless() -> None:
    params = SamplingParams(temperature=0, top_p=0.5, top_k=3, min_p=0.1)
    assert params.greedy and (params.top_p, params.top_k, params.min_p) == (1.0, 0, 0.0)


def test_an_unknown_field_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="temprature"):
        SamplingParams(temprature=1)


def test_parameters_survive_the_wire() -> None:
    params = SamplingParams(temperature=0.5, stop=["a", "b"], logit_bias={3: 1.5}, seed=2**63 + 1, logprobs=-1)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(params), type=SamplingParams) == params


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("beam_width", 0),
        ("max_tokens", 0),
        ("length_penalty", NAN),
        ("length_penalty", -1000),
        ("temperature", 0.5),
        ("allowed_token_ids", []),
    ],
)
def test_beam_parameters_are_checked(field: str, value: object) -> None:
    with pytest.raises(HeadraceError, match=f"{field} is"):
        BeamSearchParams(**{"beam_width": 2, "max_tokens": 4, field: value})
