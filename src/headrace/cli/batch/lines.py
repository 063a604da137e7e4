"""The lines of an OpenAI batch file: a request each, or what is wrong with the line."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.server.errors import ApiError

MAX_LINE_BYTES = 64 * 2**20
URLS = ("/v1/chat/completions", "/v1/completions")
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class _Line(msgspec.Struct):
    custom_id: str
    url: str
    body: msgspec.Raw
    method: str = "POST"


class _Identity(msgspec.Struct):
    custom_id: str | None = None


class _Body(msgspec.Struct):
    """Only as much of a request's body as matters here; its types are the server's to check."""

    model: Any = None
    stream: Any = None


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A request as it goes to the server: `body` is the line's own bytes."""

    custom_id: str
    url: str
    body: bytes


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no request."""

    custom_id: str | None
    error: HeadraceError


def open_input(path: str) -> BinaryIO:
    """The file at `path`. Raises `HeadraceError` for one that is not here, or not plain text."""
    if "://" in path:
        raise HeadraceError(
            f"The input is {path}, which is not a file here",
            rule="Batch files are read from this machine",
            fix="Download it first, and give its path",
            param="input_file",
        )
    try:
        stream = Path(path).open("rb")  # noqa: SIM115  (the caller closes it)
    except OSError as error:
        raise HeadraceError(
            f"The input {path} cannot be read: {error.strerror}", fix="Check the path", param="input_file"
        ) from None
    for magic, kind in _PACKED.items():
        if stream.peek(8).startswith(magic):
            stream.close()
            raise HeadraceError(
                f"The input {path} is packed with {kind}",
                rule="A batch file is plain JSON, one request a line",
                fix="Unpack it first",
                param="input_file",
            )
    return stream


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(number, content) of each line that is not blank. Of one that is too long, only its beginning."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES + 1)
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if line.strip():
            yield number, line


class LineParser:
    """Parses the lines of one file, in order; a custom_id may come once. A line seen costs some 200 bytes."""

    def __init__(self) -> None:
        self._first_seen: dict[int, int] = {}

    def parse(self, number: int, line: bytes) -> BatchRequest | BadLine:
        """What is on line `number`."""
        try:
            found = self._parse(number, line)
        except HeadraceError as error:
            return BadLine(_custom_id(line), error)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return BadLine(_custom_id(line), bad_line(number, f"is not a batch request: {error}"))
        return found

    def _parse(self, number: int, line: bytes) -> BatchRequest:
        if len(line) > MAX_LINE_BYTES:
            raise ApiError(
                f"Line {number} is longer than {MAX_LINE_BYTES:,} bytes", fix="Split it", kind=ErrorKind.TOO_LARGE
            )
        content = msgspec.json.decode(line, type=_Line)
        self._check_new(number, content.custom_id)
        if content.method != "POST":
            raise bad_line(number, f"has the method {content.method!r}", "Only POST is served", param="method")
        if content.url not in URLS:
            raise bad_line(number, f"has the url {content.url!r}", f"Served: {', '.join(URLS)}", param="url")
        body = bytes(content.body)
        if not body.startswith(b"{"):
            raise bad_line(number, "has a body that is no JSON object", param="body")
        if msgspec.json.decode(body, type=_Body).stream:
            raise bad_line(number, "asks for a stream", "A batch line is answered by one line", param="stream")
        return BatchRequest(content.custom_id, content.url, body)

    def _check_new(self, number: int, custom_id: str) -> None:
        first = self._first_seen.setdefault(hash(custom_id), number)
        if first != number:
            raise bad_line(
                number,
                f"has the custom_id {custom_id!r} of line {first}",
                "Answers are told apart by it, so it comes once in a file",
                param="custom_id",
            )


def named_model(line: bytes) -> str | None:
    """The model that the request on a line names, if it is one."""
    try:
        model = msgspec.json.decode(bytes(msgspec.json.decode(line, type=_Line).body), type=_Body).model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return model if isinstance(model, str) and model else None


def bad_line(number: int, what: str, rule: str = "", *, param: str | None = None) -> ApiError:
    """The error for a line that is no request."""
    return ApiError(f"Line {number} {what}", rule=rule, param=param, code="invalid_batch_line")


def _custom_id(line: bytes) -> str | None:
    try:
        return msgspec.json.decode(line, type=_Identity).custom_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
