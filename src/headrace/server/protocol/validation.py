"""What pydantic finds wrong in a body, in our words: the value, the rule and the fix."""

from collections.abc import Mapping, Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from headrace.core.errors import HeadraceError
from headrace.server.errors import UNKNOWN_PARAMETER, ApiError, shown, unknown

_SCALARS = ("str", "int", "float", "bool")

_KINDS = {
    "bool_type": ("true or false", "Send true or false, without quotes"),
    "int_type": ("an integer", "Send a whole number, without quotes"),
    "float_type": ("a number", "Send a number, without quotes"),
    "string_type": ("a string", "Send text in double quotes"),
    "list_type": ("a list", "Send a list: [...]"),
    "dict_type": ("an object", "Send an object: {...}"),
    "model_type": ("an object", "Send an object: {...}"),
}
"""pydantic's name of an error -> (what the value must be, how to send that)."""

_RULES = {
    "literal_error": ("It must be {expected}", "Use one that is named here"),
    "too_short": ("It must have at least {min_length} item", "Add one"),
    "too_long": ("It may have at most {max_length} items", "Send fewer"),
    "string_too_short": ("It must have at least {min_length} character", "Add one, or leave the field out"),
    "string_too_long": ("It may have at most {max_length} characters", "Shorten it"),
    "greater_than_equal": ("It must be greater than or equal to {ge}", "Use a larger number"),
    "less_than_equal": ("It must be less than or equal to {le}", "Use a smaller number"),
}
"""pydantic's name of an error -> (the rule, the fix), with the places of pydantic's context."""


def from_validation(
    error: ValidationError, rules: Mapping[str, str] | None = None, *, show_values: bool = True
) -> HeadraceError:
    """The first thing that pydantic found wrong in a body, in our words, or with the rule of `rules` for its field."""
    found = error.errors(include_url=False, include_input=show_values)
    if found[0]["type"] == "json_invalid":
        reason = found[0].get("ctx", {}).get("error", "")
        return HeadraceError(f"The request body is not valid JSON: {reason}", fix="Send one JSON object")
    return _in_our_words(_same_fault(found), found[0], rules or {}, show_values=show_values)


def _in_our_words(
    same: Sequence[ErrorDetails], first: ErrorDetails, rules: Mapping[str, str], *, show_values: bool
) -> HeadraceError:
    path, cause = _path(same[0]["loc"]), same[0].get("ctx", {}).get("error")
    if isinstance(cause, HeadraceError):
        return _at(path, cause)
    if same[0]["type"] == "missing":
        return _missing(path)
    field = path.partition(".")[0]
    if field in rules:
        return _wrong(field, first, (rules[field], ""), show_values=show_values)
    return _wrong(path, same[0], _rule_and_fix(same), show_values=show_values)


def _missing(path: str) -> ApiError:
    what, fix = f"{path} is missing", f"Add {path.rpartition('.')[2]}"
    return ApiError(what, rule="It is required", fix=fix, param=path, code="missing_required_parameter")


def _same_fault(found: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Of a value that may have several forms pydantic says what is wrong with it as each: those that got furthest."""
    first = _clean(found[0]["loc"])
    same = [each for each in found if _clean(each["loc"])[: len(first)] == first]
    depth = max(_depth(each) for each in same)
    return [each for each in same if _depth(each) == depth]


def _depth(found: ErrorDetails) -> int:
    return len(_clean(found["loc"]))


def _at(path: str, cause: HeadraceError) -> HeadraceError:
    """An error of ours about a part of the body, whose `param` begins there."""
    if not path:
        return cause
    param = f"{path}.{cause.param}" if cause.param else path
    if isinstance(cause, ApiError) and cause.code == UNKNOWN_PARAMETER:
        return unknown(param, fix=cause.fix)
    cause.param = param
    return cause


def _wrong(name: str, found: ErrorDetails, words: tuple[str, str], *, show_values: bool) -> ApiError:
    what = f"is {shown(found['input'])}" if show_values else "is wrong"
    rule, fix = words
    return ApiError(
        f"{name or 'The request body'} {what}", rule=rule, fix=fix, param=name or None, code="invalid_value"
    )


def _rule_and_fix(same: Sequence[ErrorDetails]) -> tuple[str, str]:
    kinds = dict(_KINDS[each["type"]] for each in same if each["type"] in _KINDS)
    if kinds:
        return f"It must be {' or '.join(kinds)}", next(iter(kinds.values()))
    if (words := _RULES.get(same[0]["type"])) is None:
        return same[0]["msg"], ""
    rule, fix = words
    return rule.format_map(same[0].get("ctx", {})), fix


def _clean(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Without the branches of unions, which pydantic names by their types."""
    return tuple(part for part in location if part not in _SCALARS and not str(part).startswith("list["))


def _path(location: tuple[int | str, ...]) -> str:
    """`messages.0.content`."""
    return ".".join(map(str, _clean(location)))
