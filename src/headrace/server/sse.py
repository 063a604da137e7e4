"""Server-sent events: a chunk's constant bytes are made once a stream, so a token costs little but its text."""

import msgspec

from headrace.core.errors import HeadraceError
from headrace.server.errors import envelope

DONE = b"data: [DONE]\n\n"

encode_json = msgspec.json.Encoder().encode


class ChunkFormat:
    """Makes chunks of one stream: `fields` are those that all its chunks have."""

    def __init__(self, fields: dict[str, object], *, usage_in_every_chunk: bool) -> None:
        self._head = b"data: " + encode_json(fields)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if usage_in_every_chunk else b"]}\n\n"

    def chunk(self, choice: bytes, usage: dict[str, object] | None = None) -> bytes:
        """A chunk with one choice (encoded), or with none; `usage` is what it says of counts."""
        if usage is None:
            return self._head + choice + self._tail
        return self._head + choice + b'],"usage":' + encode_json(usage) + b"}\n\n"

    def around(self, head: bytes, tail: bytes) -> tuple[bytes, bytes]:
        """What stands before and after a text in a chunk whose one choice is `head`, the text, and `tail`."""
        return self._head + head, tail + self._tail


def error_event(error: HeadraceError) -> bytes:
    """The end of a stream that failed: the envelope, and the mark that clients wait for."""
    return b"data: " + envelope(error) + b"\n\n" + DONE
