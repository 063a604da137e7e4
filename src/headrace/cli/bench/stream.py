"""One streamed answer as its reader sees it: when text came, and how many tokens the server counted."""

from collections.abc import Callable

import msgspec

DONE = b"[DONE]"


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None

    @property
    def has_text(self) -> bool:
        delta = self.delta
        return bool(self.text or (delta and (delta.content or delta.reasoning or delta.reasoning_content)))


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: msgspec.Raw = msgspec.Raw()


class TimedStream:
    """Reads an answer's events as their bytes arrive. `clock` gives seconds.

    `first` and `last` are when the first and the last text came, `gaps` the seconds between one text and the next.
    Tokens whose text comes in one event are one text: the user sees them together. `error` says what went wrong in
    the stream, and `complete` that its end was marked.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._decode = msgspec.json.Decoder(_Chunk).decode
        self._rest = b""
        self._num_texts = 0
        self._usage: _Usage | None = None
        self.first: float | None = None
        self.last = 0.0
        self.gaps: list[float] = []
        self.error: str | None = None
        self.complete = False

    @property
    def prompt_tokens(self) -> int | None:
        """The server's count, if it told one."""
        return self._usage.prompt_tokens if self._usage else None

    @property
    def output_tokens(self) -> int:
        """The server's count; without one, how many events had text."""
        counted = self._usage.completion_tokens if self._usage else None
        return self._num_texts if counted is None else counted

    def feed(self, data: bytes) -> None:
        """Read a piece of the body."""
        now = self._clock()
        *events, self._rest = (self._rest + data if self._rest else data).replace(b"\r\n", b"\n").split(b"\n\n")
        for event in events:
            if event.startswith(b"data:"):
                self._read(event[5:].strip(), now)

    def _read(self, data: bytes, now: float) -> None:
        if data == DONE:
            self.complete = True
            return
        try:
            chunk = self._decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.error = f"an event is not a chunk: {error}"
            return
        if bytes(chunk.error) not in (b"", b"null"):
            self.error = bytes(chunk.error)[:300].decode(errors="replace")
            return
        self._usage = chunk.usage or self._usage
        if any(choice.has_text for choice in chunk.choices):
            self._text_came(now)
        elif self.first is None and any(choice.finish_reason for choice in chunk.choices):
            self.first = self.last = now  # an answer of no text is there when it ends

    def _text_came(self, now: float) -> None:
        self._num_texts += 1
        if self.first is None:
            self.first = now
        else:
            self.gaps.append(now - self.last)
        self.last = now
