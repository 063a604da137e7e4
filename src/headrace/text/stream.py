"""A request's rows from the engine, turned into the `RequestOutput`s that its `output_kind` asks for.

`LLM` in process and the HTTP front both use this, so that text, stop strings and logprobs are the same in both.
"""

from collections.abc import Callable, Sequence

from headrace.core.outputs import CompletionOutput, RequestMetrics, RequestOutput, TokenLogprobs
from headrace.core.sampling_params import RequestOutputKind, SamplingParams
from headrace.text.detokenizer import PROMPT_TAIL_TOKENS
from headrace.text.sequence_text import SequenceText, decorate
from headrace.text.stop import StopStrings
from headrace.text.tokenizer import Tokenizer

PromptLogprobs = list[TokenLogprobs | None]


class RequestStream:
    """The outputs of one request with `params.n` sequences, from its start to its end.

    A request is read in one way, the one its `output_kind` names. A token costs the same however long the text is,
    but for CUMULATIVE, where each output repeats the text. `told_token_ids` continue an answer that was cut: they have
    been told already, and the outputs hold what follows them (see `SequenceText`, also for what it raises).
    `stop_strings` are those of `params`, where several requests share them.
    """

    def __init__(
        self,
        request_id: str,
        prompt: str | None,
        prompt_token_ids: list[int],
        params: SamplingParams,
        tokenizer: Tokenizer | None,
        arrival_time: float,
        told_token_ids: Sequence[int] = (),
        stop_strings: StopStrings | None = None,
    ) -> None:
        self.request_id = request_id
        self._prompt = prompt
        self._prompt_token_ids = prompt_token_ids
        self._kind = params.output_kind
        self._tokenizer = tokenizer
        tail = prompt_token_ids[-PROMPT_TAIL_TOKENS:]
        stops = StopStrings(params.stop_strings) if stop_strings is None else stop_strings
        self._sequences = [
            SequenceText(index, params, tokenizer, tail, told_token_ids, stops) for index in range(params.n)
        ]
        self._running = params.n
        self._prompt_logprobs: PromptLogprobs | None = None
        self._cached_tokens: int | None = None
        self._times = RequestMetrics(arrival_time=arrival_time)

    @property
    def finished(self) -> bool:
        """Whether every sequence has ended."""
        return self._running == 0

    @property
    def arrival_time(self) -> float:
        """When the request came."""
        return self._times.arrival_time

    @property
    def num_sequences(self) -> int:
        """How many there are, running or not."""
        return len(self._sequences)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self._prompt_token_ids)

    @property
    def num_output_tokens(self) -> int:
        """Tokens made so far, over all sequences; those that were told before are not among them."""
        return sum(len(sequence.token_ids) - sequence.num_told for sequence in self._sequences)

    def add(
        self,
        index: int,
        token_id: int,
        finish_reason: str | None,
        stop_token: int | None,
        logprobs: TokenLogprobs | None,
        *,
        cached_tokens: int | None = None,
        prompt_logprobs: PromptLogprobs | None = None,
        now: float,
    ) -> bool:
        """Take one row of sequence `index`; True if a stop string ended it, so that the engine must be told.

        `token_id` -1: it ended without a token. `finish_reason` "stop" without `stop_token`: it ended with EOS.
        Rows of a sequence that has ended are ignored.
        """
        sequence = self._sequences[index]
        if sequence.finished:
            return False
        self._note_prompt(cached_tokens, prompt_logprobs)
        matched = False
        if token_id >= 0:
            self._note_time(now)
            matched = sequence.add_token(token_id, logprobs, is_stop=finish_reason == "stop")
        if finish_reason is not None and not matched:
            sequence.finish(finish_reason, stop_token)
        if matched or finish_reason is not None:
            self._end_one(now)
        return matched and finish_reason is None

    def plain_text(self, index: int) -> Callable[[int], str] | None:
        """For DELTA, a shorter way than `add` and `output` where a token of sequence `index` is nothing but its text.

        The function takes a token that does not end the sequence, and gives its text as a delta would hold it. It may
        be used whenever nothing is left to tell. None if there are stop strings, logprobs or no text.
        """
        return self._sequences[index].next_text if self._sequences[index].is_plain else None

    def abort(self, reason: str = "abort", *, now: float | None = None) -> None:
        """End every sequence that still runs."""
        for sequence in self._sequences:
            if not sequence.finished:
                sequence.finish(reason)
                self._end_one(self._times.last_token_time if now is None else now)

    def output(self) -> RequestOutput | None:
        """What the request's `output_kind` asks for; None if nothing is new (DELTA) or it still runs (FINAL_ONLY)."""
        if self._kind == RequestOutputKind.DELTA:
            return self._delta()
        if self._kind == RequestOutputKind.FINAL_ONLY and not self.finished:
            return None
        return self._output([sequence.whole() for sequence in self._sequences], self._prompt_logprobs)

    def _delta(self) -> RequestOutput | None:
        outputs = [sequence.delta() for sequence in self._sequences if sequence.has_news]
        if not outputs:
            return None
        prompt_logprobs, self._prompt_logprobs = self._prompt_logprobs, None
        return self._output(outputs, prompt_logprobs)

    def _output(self, outputs: list[CompletionOutput], prompt_logprobs: PromptLogprobs | None) -> RequestOutput:
        return RequestOutput(
            request_id=self.request_id,
            prompt=self._prompt,
            prompt_token_ids=self._prompt_token_ids,
            prompt_logprobs=prompt_logprobs,
            outputs=outputs,
            finished=self.finished,
            metrics=self._times_now(),
            num_cached_tokens=self._cached_tokens,
        )

    def _times_now(self) -> RequestMetrics:
        times = self._times
        return RequestMetrics(
            arrival_time=times.arrival_time,
            first_token_time=times.first_token_time,
            last_token_time=times.last_token_time,
            finished_time=times.finished_time,
        )

    def _note_prompt(self, cached_tokens: int | None, prompt_logprobs: PromptLogprobs | None) -> None:
        if cached_tokens is not None:
            self._cached_tokens = cached_tokens
        if prompt_logprobs is not None:
            self._prompt_logprobs = [
                None if entry is None else decorate(entry, self._tokenizer) for entry in prompt_logprobs
            ]

    def _note_time(self, now: float) -> None:
        self._times.last_token_time = now
        if not self._times.first_token_time:
            self._times.first_token_time = now

    def _end_one(self, now: float) -> None:
        self._running -= 1
        if self.finished:
            self._times.finished_time = now
