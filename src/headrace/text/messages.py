"""Chat messages, from whatever shape a caller has them in to the plain dicts that a chat template sees.

Nothing but JSON's types goes into a template: the objects of others have methods that its sandbox does not know.
"""

import json
from collections.abc import Mapping
from typing import Any

from headrace.core.errors import HeadraceError, not_yet

_TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}


def plain_messages(messages: object) -> list[dict[str, Any]]:
    """Messages with string content. Raises `HeadraceError` for any that is not a message of text."""
    if not isinstance(messages, list | tuple):
        raise _bad(f"messages is {messages!r}", "It must be a list of messages")
    if not messages:
        raise _bad("messages is empty", "A chat needs at least one message")
    return [_message(index, plain(message)) for index, message in enumerate(messages)]


def plain(value: object) -> Any:
    """`value` out of None, bool, int, float, str, list and dict alone. Raises `HeadraceError` for what is not data."""
    try:
        return _plain(value)
    except RecursionError:
        raise _bad("The messages are nested too deep", "A chat is a few levels deep") from None


def _plain(value: object) -> Any:
    if value is None or type(value) in (bool, str, int, float):
        return value
    for kind in (str, int, float):  # subclasses may bring methods of their own
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if callable(dump := getattr(value, "model_dump", None)):
        return _plain(dump(exclude_none=True))
    raise _bad(f"A message holds a {type(value).__name__}", "Messages hold strings, numbers, lists and dicts")


def _message(index: int, message: Any) -> dict[str, Any]:
    where = f"messages[{index}]"
    if not isinstance(message, dict):
        raise _bad(f"{where} is {message!r}", "A message is a dict with a role and content")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise _bad(f"{where} has the role {role!r}", "A message needs a role, for example user, assistant or system")
    clean = dict(message)
    if calls := message.get("tool_calls"):
        clean["tool_calls"] = [_tool_call(f"{where}.tool_calls[{n}]", call) for n, call in enumerate(calls)]
    elif "content" not in message:
        raise _bad(f"{where} has no content", "A message needs content")
    clean["content"] = _content(f"{where}.content", message.get("content"))
    return clean


def _content(where: str, content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _bad(f"{where} is {content!r}", "It must be a string or a list of text parts")
    return "\n".join(_part(f"{where}[{n}]", part) for n, part in enumerate(content))


def _part(where: str, part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in _TEXT_PARTS:
        if isinstance(kind, str):
            raise not_yet(f"{where} of type {kind!r}", "Send text: this model reads nothing else", param="messages")
        raise _bad(f"{where} is {part!r}", 'A part of a message looks like {"type": "text", "text": ...}')
    text = part.get(_TEXT_PARTS[kind])
    if not isinstance(text, str):
        raise _bad(f"{where}.text is {text!r}", "It must be a string")
    return text


def _tool_call(where: str, call: Any) -> Any:
    """OpenAI sends a call's arguments as a string of JSON; templates write JSON themselves, so they get the data."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise _bad(f"{where} is {call!r}", "A tool call looks like {'type': 'function', 'function': {...}}")
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return call
    try:
        return {**call, "function": {**function, "arguments": json.loads(arguments or "{}")}}
    except ValueError:
        raise _bad(f"{where}.function.arguments is {arguments!r}", "It must be JSON") from None


def _bad(what: str, rule: str) -> HeadraceError:
    return HeadraceError(what, rule=rule, fix='For example [{"role": "user", "content": "Hi"}]', param="messages")
