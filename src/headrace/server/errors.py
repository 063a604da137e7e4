"""Errors as OpenAI's clients expect them: a status, and the envelope `{"error": {message, type, param, code}}`."""

import reprlib
from collections.abc import Mapping

import msgspec
from pydantic import ValidationError

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.core.limits import ContextOverflow

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}

UNKNOWN_PARAMETER = "unknown_parameter"

_SCALARS = ("str", "int", "float", "bool")


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


def unknown(name: str) -> ApiError:
    """The 400 for a field that a body has and no one knows."""
    shown = _shown_name(name)
    what = f"Unrecognized request argument: {shown}"
    return ApiError(what, fix="Remove it, or check its spelling", param=shown, code=UNKNOWN_PARAMETER)


def from_validation(
    error: ValidationError, rules: Mapping[str, str] | None = None, *, show_values: bool = True
) -> HeadraceError:
    """The first thing that pydantic found wrong in a body, in our words, or with the rule of `rules` for its field."""
    first = error.errors(include_url=False, include_input=show_values)[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "")
        return HeadraceError(f"The request body is not valid JSON: {reason}", fix="Send one JSON object")
    path = _path(first["loc"])
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ApiError) and cause.code == UNKNOWN_PARAMETER:
        return unknown(f"{path}.{cause.param}" if path else str(cause.param))
    if isinstance(cause, HeadraceError):
        return cause
    if first["type"] == "missing":
        return ApiError(f"{path} is missing", rule="It is required", param=path, code="missing_required_parameter")
    field = path.partition(".")[0]
    rule = (rules or {}).get(field)
    name, rule = (path, first["msg"]) if rule is None else (field, rule)
    what = f"is {shown(first['input'])}" if show_values else "is wrong"
    return ApiError(f"{name or 'The request body'} {what}", rule=rule, param=name or None, code="invalid_value")


def _code(error: HeadraceError, status: int) -> str | None:
    if isinstance(error, ApiError) and error.code is not None:
        return error.code
    return "context_length_exceeded" if isinstance(error, ContextOverflow) else _CODES.get(status)


def _path(location: tuple[int | str, ...]) -> str:
    """`messages.0.content`, leaving out the branches of unions, which pydantic names by their types."""
    return ".".join(str(part) for part in location if part not in _SCALARS and not str(part).startswith("list["))


def _shown_name(name: str, limit: int = 100) -> str:
    return name if len(name) <= limit else f"{name[:limit]}..."


def shown(value: object, limit: int = 60) -> str:
    """The beginning of a value, without looking at the rest of it."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = limit
    short.maxlist = short.maxdict = limit // 3
    text = short.repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
