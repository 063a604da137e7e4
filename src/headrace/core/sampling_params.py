"""How a request is sampled: vLLM's `SamplingParams` and `BeamSearchParams`, validated where they are made.

Field names, defaults and ranges are vLLM's. Fields that we know by name but do not serve are declared too, so that
passing one is refused by name instead of being a `TypeError`, and never ignored.
"""

import math
from enum import IntEnum
from operator import attrgetter
from typing import Annotated, Any

import msgspec

from headrace.core.errors import HeadraceError

GREEDY_EPSILON = 1e-5
MIN_TEMPERATURE = 0.01
_LEAVE_OUT = "Leave it out for the default"
MAX_TEMPERATURE = 1e4
MIN_TOP_P = 1e-6
MAX_COUNT = 2**31 - 1
MAX_N = 16_384
LOGIT_BIAS_LIMIT = 100.0


class RequestOutputKind(IntEnum):
    """What each streamed `RequestOutput` holds: everything so far, only what is new, or only the end."""

    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


Refused = Annotated[Any, "known by name, not served"]

REFUSED_FIELDS: dict[str, str] = {
    "best_of": "Ask for n sequences and choose among them with logprobs, or use LLM.beam_search",
    "use_beam_search": "Call LLM.beam_search(prompts, BeamSearchParams(beam_width=...)) in Python",
    "structured_outputs": "Leave it out until grammars are built",
    "guided_json": "Leave it out until grammars are built",
    "guided_regex": "Leave it out until grammars are built",
    "guided_choice": "Leave it out until grammars are built; allowed_token_ids restricts single tokens today",
    "guided_grammar": "Leave it out until grammars are built",
    "guided_decoding": "Leave it out until grammars are built",
    "logits_processors": "Use logit_bias, allowed_token_ids or bad_words",
    "truncate_prompt_tokens": "Truncate the prompt before sending it, for example prompt_token_ids[-limit:]",
    "early_stopping": "Call LLM.beam_search in Python",
    "length_penalty": "Pass it to BeamSearchParams, for LLM.beam_search in Python",
    "logprob_token_ids": "Ask for logprobs and pick the token ids that you want",
    "flat_logprobs": "Leave it out; logprobs come as a list of dicts",
    "extra_args": "Leave it out; there are no custom logits processors",
    "thinking_token_budget": "Limit the answer with max_tokens",
    "repetition_detection": "Use repetition_penalty, frequency_penalty or max_tokens",
    "watermarking": "Leave it out",
    "stream_interval": "Leave it out; every token is streamed as it is made",
    "prompt_logprob_token_ids": "Use prompt_logprobs",
    "prompt_logprob_start": "Use prompt_logprobs",
    "routed_experts_prompt_start": "Leave it out",
    "trace_decode_token_ids": "Leave it out",
}
"""Field -> what to do instead; the HTTP routes refuse the same fields in the same words."""

_refused_values = attrgetter(*REFUSED_FIELDS)
_NOTHING_REFUSED = (None,) * len(REFUSED_FIELDS)


class SamplingParams(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Sampling parameters of one request. Raises `HeadraceError` for any value outside its rule.

    See https://docs.vllm.ai (SamplingParams) for the meaning of each field. `max_tokens=None` means "until the
    context is full"; `top_k` 0 or -1 is off; `logprobs=-1` is the whole vocabulary; `seed=None` draws one.
    """

    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    skip_reading_prefix_cache: bool | None = None

    best_of: Refused = None
    use_beam_search: Refused = None
    structured_outputs: Refused = None
    guided_json: Refused = None
    guided_regex: Refused = None
    guided_choice: Refused = None
    guided_grammar: Refused = None
    guided_decoding: Refused = None
    logits_processors: Refused = None
    truncate_prompt_tokens: Refused = None
    early_stopping: Refused = None
    length_penalty: Refused = None
    logprob_token_ids: Refused = None
    flat_logprobs: Refused = None
    extra_args: Refused = None
    thinking_token_budget: Refused = None
    repetition_detection: Refused = None
    watermarking: Refused = None
    stream_interval: Refused = None
    prompt_logprob_token_ids: Refused = None
    prompt_logprob_start: Refused = None
    routed_experts_prompt_start: Refused = None
    trace_decode_token_ids: Refused = None

    def __post_init__(self) -> None:
        _refuse_unserved(self)
        self._normalize()
        self._check_numbers()
        self._check_lists()
        self._check_together()
        if self.greedy:
            self.top_p, self.top_k, self.min_p = 1.0, 0, 0.0

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature < GREEDY_EPSILON

    @property
    def stop_strings(self) -> list[str]:
        """`stop` as a list, whatever form it was given in."""
        return [] if self.stop is None else [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def has_penalties(self) -> bool:
        """Whether any penalty looks at the tokens so far."""
        return self.presence_penalty != 0 or self.frequency_penalty != 0 or self.repetition_penalty != 1

    @property
    def reads_prefix_cache(self) -> bool:
        """Prompt logprobs need every prompt position computed, so they do not read the prefix cache."""
        return self.prompt_logprobs is None and not self.skip_reading_prefix_cache

    def _normalize(self) -> None:
        if self.seed == -1:
            self.seed = None
        if self.top_k == -1:
            self.top_k = 0
        if self.best_of == 1 or self.best_of == self.n:
            self.best_of = None
        if self.logprobs is True:  # the completion routes of older clients
            self.logprobs = 1

    def _check_numbers(self) -> None:
        _integer("n", self.n, 1, MAX_N)
        for name in ("presence_penalty", "frequency_penalty"):
            _number(name, getattr(self, name), -2.0, 2.0)
        _number("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        _number("temperature", self.temperature, 0.0, MAX_TEMPERATURE, fix="Use temperature=0 for greedy decoding")
        if GREEDY_EPSILON <= self.temperature < MIN_TEMPERATURE:
            self.temperature = MIN_TEMPERATURE
        _number("top_p", self.top_p, MIN_TOP_P, 1.0, fix="Use top_k=1 for the likeliest token only")
        _integer("top_k", self.top_k, 0, MAX_COUNT, fix="Use top_k=0 or -1 to switch it off")
        _number("min_p", self.min_p, 0.0, 1.0)
        if self.seed is not None:
            _integer("seed", self.seed, -(2**63), 2**64 - 1)
        if self.max_tokens is not None:
            _integer("max_tokens", self.max_tokens, 1, MAX_COUNT)
        _integer("min_tokens", self.min_tokens, 0, MAX_COUNT)
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                _integer(name, getattr(self, name), -1, MAX_COUNT, fix="Use -1 for the whole vocabulary")

    def _check_lists(self) -> None:
        if self.stop is not None:
            _strings("stop", self.stop_strings)
        if self.bad_words is not None:
            _strings("bad_words", self.bad_words)
        if self.stop_token_ids is not None:
            _token_ids("stop_token_ids", self.stop_token_ids)
        if self.allowed_token_ids is not None:
            _allowed_token_ids(self.allowed_token_ids)
        if self.logit_bias is not None:
            self.logit_bias = _logit_bias(self.logit_bias)

    def _check_together(self) -> None:
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise HeadraceError(
                f"min_tokens is {self.min_tokens} and max_tokens is {self.max_tokens}",
                rule="min_tokens may not be greater than max_tokens",
                fix="Lower min_tokens or raise max_tokens",
                param="min_tokens",
            )
        if self.greedy and self.n > 1:
            raise HeadraceError(
                f"n is {self.n} and temperature is {self.temperature}",
                rule="Greedy sampling makes n equal sequences, so it needs n=1",
                fix="Use n=1, or a temperature above 0",
                param="n",
            )
        if self.stop_strings and not self.detokenize:
            raise HeadraceError(
                "stop is set and detokenize is False",
                rule="Stop strings are looked for in the text, so they need detokenize=True",
                fix="Use stop_token_ids, or leave detokenize on",
                param="stop",
            )


class BeamSearchParams(msgspec.Struct, kw_only=True):
    """Parameters of `LLM.beam_search`. Raises `HeadraceError` for any value outside its rule.

    A beam's score is its summed logprob divided by length ** `length_penalty` (length counts the prompt, as in vLLM).
    """

    beam_width: int
    max_tokens: int
    ignore_eos: bool = False
    temperature: float = 0.0
    length_penalty: float = 1.0
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    allowed_token_ids: list[int] | None = None

    def __post_init__(self) -> None:
        _integer("beam_width", self.beam_width, 1, 256)
        _integer("max_tokens", self.max_tokens, 1, MAX_COUNT)
        _number("temperature", self.temperature, 0.0, 0.0, fix="Leave it out: beams follow the log probabilities")
        _number("length_penalty", self.length_penalty, -10.0, 10.0)
        _allowed_token_ids(self.allowed_token_ids)


def _refuse_unserved(params: SamplingParams) -> None:
    if _refused_values(params) == _NOTHING_REFUSED:
        return
    for name, fix in REFUSED_FIELDS.items():
        value = getattr(params, name)
        if name == "best_of" and value in (1, params.n):
            continue
        if value is not None and value is not False:
            raise HeadraceError(f"{name}={value!r} is not supported", fix=fix, param=name)


def _integer(name: str, value: object, low: int, high: int | None, *, fix: str = "") -> None:
    if isinstance(value, int) and not isinstance(value, bool) and value >= low and (high is None or value <= high):
        return
    bounds = f"of at least {low}" if high in (None, MAX_COUNT) else f"between {low} and {high}"
    raise HeadraceError(
        f"{name} is {value!r}", rule=f"It must be an integer {bounds}", fix=fix or _LEAVE_OUT, param=name
    )


def _number(name: str, value: object, low: float, high: float, *, fix: str = "") -> None:
    if type(value) is float and low <= value <= high < math.inf:
        return
    good = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    if good and not isinstance(value, bool) and low <= value <= high:  # type: ignore[operator]
        return
    bound = f"{low:g} or greater" if math.isfinite(low) else "of any size"
    if math.isfinite(high):
        bound = f"between {low:g} and {high:g}" if low < high else f"{low:g}"
    raise HeadraceError(
        f"{name} is {value!r}", rule=f"It must be a finite number, {bound}", fix=fix or _LEAVE_OUT, param=name
    )


def _strings(name: str, values: object) -> None:
    if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
        raise HeadraceError(
            f"{name} is {values!r}",
            rule="It must be a string or a list of strings, none of them empty",
            fix="Use a string that is not empty, or leave it out",
            param=name,
        )


def _token_ids(name: str, values: object) -> None:
    good = isinstance(values, list) and all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values)
    if not good:
        raise HeadraceError(
            f"{name} is {values!r}", rule="It must be a list of token ids, integers from 0", fix=_LEAVE_OUT, param=name
        )


def _allowed_token_ids(ids: list[int] | None) -> None:
    _token_ids("allowed_token_ids", ids or [])
    if ids is not None and not ids:
        raise HeadraceError(
            "allowed_token_ids is empty",
            rule="It must name at least one token, or nothing could be sampled",
            fix="Leave it out to allow every token",
            param="allowed_token_ids",
        )


def _logit_bias(bias: object) -> dict[int, float]:
    """Token ids may come as strings (JSON keys); values are clamped to OpenAI's range of -100 to 100."""
    if not isinstance(bias, dict):
        raise HeadraceError(
            f"logit_bias is {bias!r}", rule="It must map token ids to numbers", fix=_LEAVE_OUT, param="logit_bias"
        )
    clean = {}
    for key, value in bias.items():
        _number(f"logit_bias[{key}]", value, -math.inf, math.inf)
        try:
            token_id = int(key)
        except (TypeError, ValueError):
            what = f"logit_bias has the key {key!r}"
            raise HeadraceError(what, rule="Keys must be token ids", param="logit_bias") from None
        clean[token_id] = float(max(-LOGIT_BIAS_LIMIT, min(LOGIT_BIAS_LIMIT, value)))
    return clean
