"""Which of several forms a body has, told by one of its fields, before it is parsed as that form."""

import msgspec


class _Form(msgspec.Struct):
    """Only as much of the body as tells which form it has."""

    inputs: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()


def form_of(raw: bytes) -> str | None:
    """The first of inputs, messages and prompt that the body has.

    A body that is no JSON, or has a NaN, gets the form that it seems to have, whose parser says what is wrong.
    """
    try:
        form = msgspec.json.decode(raw, type=_Form)
    except (msgspec.DecodeError, RecursionError):
        return next((name for name in _Form.__struct_fields__ if f'"{name}"'.encode() in raw), None)
    return next((name for name in _Form.__struct_fields__ if bytes(getattr(form, name))), None)
