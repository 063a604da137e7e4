"""The lines that a batch is answered with, in the shape of OpenAI's batch output."""

import secrets

import msgspec

from headrace.cli.client.http import Answer
from headrace.core.errors import HeadraceError
from headrace.server.errors import ApiError, envelope, status_of


class _Response(msgspec.Struct):
    status_code: int
    request_id: str
    body: msgspec.Raw


class _Error(msgspec.Struct):
    code: str
    message: str


class _AnswerLine(msgspec.Struct):
    id: str
    custom_id: str | None
    response: _Response
    error: _Error | None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Known(msgspec.Struct):
    """What is read of an answer."""

    id: str = ""
    usage: _Usage | None = None


class CustomId(msgspec.Struct):
    """What tells an answer line's request."""

    custom_id: str | None


class AnswerLine(msgspec.Struct, frozen=True):
    """A line to write, and what the summary counts of it. `failure` is empty, or says what went wrong."""

    line: bytes
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failure: str = ""


def answered(custom_id: str, answer: Answer) -> AnswerLine:
    """The line for what the server answered, be it a refusal."""
    body = _one_line(answer.body)
    known = _known(body)
    request_id = answer.headers.get("x-request-id") or known.id or _new_id()
    line = _encoded(custom_id, _Response(answer.status, request_id, msgspec.Raw(body)), None)
    failure = "" if answer.status == 200 else f"{answer.status}: {_message(body)}"
    usage = known.usage or _Usage()
    return AnswerLine(line, usage.prompt_tokens, usage.completion_tokens, failure)


def unasked(custom_id: str | None, error: HeadraceError) -> AnswerLine:
    """The line for a request that never was one: the server's envelope and status, and OpenAI's `error` too."""
    status = status_of(error)
    response = _Response(status, _new_id(), msgspec.Raw(envelope(error)))
    told = _Error(getattr(error, "code", None) or "invalid_batch_line", str(error))
    return AnswerLine(_encoded(custom_id, response, told), failure=f"{status}: {error}")


def unanswered(custom_id: str, reason: str) -> AnswerLine:
    """The line for a request whose answer did not come in time, with OpenAI's code for that."""
    fix = "Raise --request-timeout, or ask for less, and run the line again"
    return unasked(custom_id, ApiError(f"There was {reason}", fix=fix, status=408, code="request_timeout"))


def _encoded(custom_id: str | None, response: _Response, error: _Error | None) -> bytes:
    answer = _AnswerLine(f"batch_req_{secrets.token_hex(12)}", custom_id, response, error)
    return msgspec.json.encode(answer) + b"\n"


def _new_id() -> str:
    return f"req_{secrets.token_hex(12)}"


def _one_line(body: bytes) -> bytes:
    """The body as JSON without line breaks; what is no JSON (a proxy's page) becomes an envelope."""
    try:
        msgspec.json.decode(body)
        return msgspec.json.format(body, indent=-1) if b"\n" in body else body
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return envelope(HeadraceError(f"The answer is not JSON: {body[:200].decode(errors='replace')}"))


def _known(body: bytes) -> _Known:
    try:
        return msgspec.json.decode(body, type=_Known)
    except msgspec.DecodeError:
        return _Known()


def _message(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body)["error"]["message"])
    except (KeyError, TypeError):
        return body[:200].decode(errors="replace")
