"""The one exception class that users meet, and the shape every error has.

An error is a value with three parts: what was wrong (with the offending value), which rule it broke, and what to do
about it. The HTTP front turns `kind` into a status; Python users catch `HeadraceError` (a `ValueError`, as in vLLM).
"""

from enum import Enum


class ErrorKind(Enum):
    """What sort of failure it is; the value is the HTTP status that the server answers with."""

    INVALID_REQUEST = 400
    UNAUTHORIZED = 401
    FORBIDDEN = 403
    NOT_FOUND = 404
    TOO_LARGE = 413
    OVERLOADED = 429
    INTERNAL = 500
    UNAVAILABLE = 503


class HeadraceError(ValueError):
    """Something is wrong, and it is known what and what to do.

    `what` names the offending value, `rule` the rule it broke, `fix` the cure; each is a sentence without its full
    stop. `param` names the argument or request field at fault, where there is one.
    """

    def __init__(
        self,
        what: str,
        *,
        rule: str = "",
        fix: str = "",
        param: str | None = None,
        kind: ErrorKind = ErrorKind.INVALID_REQUEST,
    ) -> None:
        super().__init__(what, rule, fix, param, kind)
        self.what = what
        self.rule = rule
        self.fix = fix
        self.param = param
        self.kind = kind

    def __str__(self) -> str:
        return " ".join(part if part[-1] in ".?!:" else f"{part}." for part in (self.what, self.rule, self.fix) if part)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.what, self.rule, self.fix, self.param, self.kind)


def _rebuild(what: str, rule: str, fix: str, param: str | None, kind: ErrorKind) -> HeadraceError:
    return HeadraceError(what, rule=rule, fix=fix, param=param, kind=kind)


def not_yet(what: str, fix: str, *, param: str | None = None) -> HeadraceError:
    """The error for a feature that is known by name but not built yet."""
    return HeadraceError(f"{what} is not supported yet", fix=fix, param=param)
