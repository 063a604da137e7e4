"""One sequence's text side: what its tokens have become, and what of it has been told."""

from collections.abc import Sequence

from headrace.core.continuation import has_ended
from headrace.core.outputs import CompletionOutput, Logprob, TokenLogprobs
from headrace.core.sampling_params import SamplingParams
from headrace.text.detokenizer import IncrementalDetokenizer
from headrace.text.stop import StopChecker, StopStrings
from headrace.text.tokenizer import Tokenizer


class SequenceText:
    """Tokens of one sequence in, its `CompletionOutput` out: whole, or only what is new since the last one.

    Without a tokenizer, or with `detokenize=False`, there is no text. A sequence takes no token after its end.
    `told_token_ids` were told before, elsewhere: what is told now follows them, as if they had been told here. Raises
    `HeadraceError` if their text has a stop string, which had ended the sequence.
    """

    def __init__(
        self,
        index: int,
        params: SamplingParams,
        tokenizer: Tokenizer | None,
        prompt_tail: list[int],
        told_token_ids: Sequence[int],
        stop_strings: StopStrings,
    ) -> None:
        self.index = index
        self.token_ids: list[int] = []
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprobs] | None = None if params.logprobs is None else []
        self._cumulative_logprob = 0.0
        self._min_tokens = params.min_tokens
        self._include_stop = params.include_stop_str_in_output
        self._tokenizer = tokenizer
        self._detokenizer = (
            IncrementalDetokenizer(tokenizer, prompt_tail, skip_special_tokens=params.skip_special_tokens)
            if tokenizer is not None and params.detokenize
            else None
        )
        self._stop = StopChecker(stop_strings, params.include_stop_str_in_output) if stop_strings else None
        self.num_told = self._told_tokens = len(told_token_ids)
        self._told_end = False
        if told_token_ids:
            self._replay(told_token_ids)

    @property
    def finished(self) -> bool:
        """Whether the sequence has ended."""
        return self.finish_reason is not None

    @property
    def has_news(self) -> bool:
        """Whether `delta` would hold anything."""
        return self._told_tokens < len(self.token_ids) or (self.finished and not self._told_end)

    @property
    def is_plain(self) -> bool:
        """Whether a token is nothing but its text: there are no logprobs, no stop strings to look for."""
        return self._detokenizer is not None and self._stop is None and self._logprobs is None

    def next_text(self, token_id: int) -> str:
        """For a plain sequence, `add_token` and `delta` in one: the text to tell. All before must have been told."""
        assert self._detokenizer is not None
        self.token_ids.append(token_id)
        self._told_tokens += 1
        return self._detokenizer.add(token_id)

    def add_token(self, token_id: int, logprobs: TokenLogprobs | None, *, is_stop: bool) -> bool:
        """Take the next token; whether it completed a stop string, which ends the sequence.

        `is_stop`: it is the EOS or stop token that ended the sequence, which is shown only if the parameters say so.
        """
        self.token_ids.append(token_id)
        if self._logprobs is not None and logprobs is not None:
            self._logprobs.append(decorate(logprobs, self._tokenizer))
            self._cumulative_logprob += logprobs[token_id].logprob
        if self._detokenizer is None or (is_stop and not self._include_stop):
            return False
        return self._show(self._detokenizer.add(token_id))

    def finish(self, reason: str, stop_reason: int | str | None = None) -> None:
        """End the sequence, and let out the text that was held back."""
        if self._detokenizer is not None and not self._show(self._detokenizer.flush()) and self._stop is not None:
            self._keep(self._stop.flush())
        if not self.finished:
            self.finish_reason, self.stop_reason = reason, stop_reason

    def _replay(self, token_ids: Sequence[int]) -> None:
        """Bring detokenizer and stop strings to where they were after `token_ids`: held characters, held text."""
        self.token_ids += token_ids
        if self._detokenizer is None:
            return
        texts = list(map(self._detokenizer.add, token_ids))
        stop = None if self._stop is None else self._stop.replay("".join(texts[self._min_tokens :]))
        if stop is not None:
            raise has_ended(f"output_token_ids make the stop string {stop!r}", "A stop string ends the answer")

    def _show(self, text: str) -> bool:
        if self._stop is None or len(self.token_ids) <= self._min_tokens:
            self._keep(text)
            return False
        shown, stop = self._stop.feed(text)
        self._keep(shown)
        if stop is None:
            return False
        self.finish_reason, self.stop_reason = "stop", stop
        return True

    def _keep(self, text: str) -> None:
        if text:
            self._pieces.append(text)

    def whole(self) -> CompletionOutput:
        """Everything so far."""
        text = "".join(self._pieces)
        self._pieces = [text]
        token_ids = self.token_ids[self.num_told :]
        return self._output(text, token_ids, None if self._logprobs is None else list(self._logprobs))

    def delta(self) -> CompletionOutput:
        """What is new since the last `delta`."""
        start, self._told_tokens = self._told_tokens, len(self.token_ids)
        pieces, self._pieces = self._pieces, []
        self._told_end = self.finished
        logprobs = None if self._logprobs is None else self._logprobs[start - self.num_told :]
        return self._output("".join(pieces), self.token_ids[start:], logprobs)

    def _output(self, text: str, token_ids: list[int], logprobs: list[TokenLogprobs] | None) -> CompletionOutput:
        return CompletionOutput(
            index=self.index,
            text=text,
            token_ids=token_ids,
            cumulative_logprob=None if logprobs is None else self._cumulative_logprob,
            logprobs=logprobs,
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
        )


def decorate(logprobs: TokenLogprobs, tokenizer: Tokenizer | None) -> TokenLogprobs:
    """The same with each token's text filled in."""
    if tokenizer is None:
        return logprobs
    text = tokenizer.token_text
    return {token_id: Logprob(entry.logprob, entry.rank, text(token_id)) for token_id, entry in logprobs.items()}
