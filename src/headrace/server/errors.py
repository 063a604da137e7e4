"""Errors as OpenAI's clients expect them: a status, and the envelope `{"error": {message, type, param, code}}`."""

import difflib
import reprlib
from collections.abc import Collection, Mapping

import msgspec

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.core.limits import ContextOverflow

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}

UNKNOWN_PARAMETER = "unknown_parameter"

SURE = 0.75
"""How alike two names of fields are before one is taken for the other."""


class ApiError(HeadraceError):
    """An error with OpenAI's machine-readable `code`, or a status that only HTTP has, or extra headers."""

    def __init__(
        self,
        what: str,
        *,
        rule: str = "",
        fix: str = "",
        param: str | None = None,
        kind: ErrorKind = ErrorKind.INVALID_REQUEST,
        code: str | None = None,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(what, rule=rule, fix=fix, param=param, kind=kind)
        self.code = code
        self.status = status or kind.value
        self.headers = dict(headers or {})


def status_of(error: HeadraceError) -> int:
    """The HTTP status that `error` is answered with."""
    return error.status if isinstance(error, ApiError) else error.kind.value


def headers_of(error: HeadraceError) -> dict[str, str]:
    """Extra headers that `error` is answered with."""
    return error.headers if isinstance(error, ApiError) else {}


def envelope(error: HeadraceError) -> bytes:
    """The JSON body for `error`."""
    status = status_of(error)
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return msgspec.json.encode(
        {"error": {"message": str(error), "type": kind, "param": error.param, "code": _code(error, status)}}
    )


def unavailable(what: str, fix: str, *, retry_after_seconds: int) -> ApiError:
    """The 503 for a server that cannot take requests now."""
    headers = {"Retry-After": str(retry_after_seconds)}
    return ApiError(what, fix=fix, kind=ErrorKind.UNAVAILABLE, headers=headers)


def unknown(name: str, known: Collection[str] = (), *, fix: str = "") -> ApiError:
    """The 400 for a field that a body has and no one knows; it says which of the `known` ones may be meant."""
    argument = shown_name(name)
    what = f"Unrecognized request argument: {argument}"
    return ApiError(what, fix=fix or _meant(argument, known), param=argument, code=UNKNOWN_PARAMETER)


def _meant(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=SURE)
    return f"Did you mean {close[0]}?" if close else "Remove it, or check its spelling"


def _code(error: HeadraceError, status: int) -> str | None:
    if isinstance(error, ApiError) and error.code is not None:
        return error.code
    return "context_length_exceeded" if isinstance(error, ContextOverflow) else _CODES.get(status)


def shown_name(name: str, limit: int = 100) -> str:
    """A name that a client made up, cut if it is long."""
    return name if len(name) <= limit else f"{name[:limit]}..."


def shown(value: object, limit: int = 60) -> str:
    """The beginning of a value, without looking at the rest of it."""
    if value is None or isinstance(value, bool):
        return msgspec.json.encode(value).decode()
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = limit
    short.maxlist = short.maxdict = limit // 3
    text = short.repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
