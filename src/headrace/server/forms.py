"""Which of several forms a body has, told by its fields, before it is parsed as that form."""

import msgspec


class _Form(msgspec.Struct):
    """Only as much of the body as tells which form it has."""

    inputs: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    endpoint: msgspec.Raw = msgspec.Raw()


_FORMS = ("inputs", "messages", "prompt")


def form_of(raw: bytes) -> str | None:
    """The first of inputs, messages and prompt that the body has."""
    return next(iter(forms_of(raw)), None)


def forms_of(raw: bytes) -> list[str]:
    """Those of inputs, messages and prompt that the body has.

    A body that is no JSON, or has a NaN, gets the form that it seems to have, whose parser says what is wrong.
    """
    try:
        form = msgspec.json.decode(raw, type=_Form)
    except (msgspec.DecodeError, RecursionError):
        return [name for name in _FORMS if f'"{name}"'.encode() in raw][:1]
    return [name for name in _FORMS if bytes(getattr(form, name))]


def has_endpoint(raw: bytes, endpoint: str) -> bool:
    """Whether the body's `endpoint` is this one. What is no JSON, or has a NaN, is told by what it seems to have."""
    try:
        given = msgspec.json.decode(raw, type=_Form).endpoint
        return bool(bytes(given)) and msgspec.json.decode(given) == endpoint
    except (msgspec.DecodeError, RecursionError):
        return f'"{endpoint}"'.encode() in raw
