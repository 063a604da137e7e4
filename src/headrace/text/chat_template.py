"""Chat templates: messages to a prompt, by the Jinja template that came with the model.

A template is somebody else's program. It runs in jinja2's immutable sandbox (no attribute that leads to Python, no
`range` over 100,000, no change to what it is given) and sees JSON data only. The sandbox does not bound time or memory:
nested loops and string multiplication remain, so a template from an untrusted client is not to be rendered.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from headrace.core.errors import HeadraceError
from headrace.text.messages import plain, plain_messages
from headrace.text.parts import DEFAULT_TEMPLATE, TOOL_TEMPLATE

_RESERVED = ("messages", "tools", "chat_template", "tokenize", "add_generation_prompt", "continue_final_message")
_COMPILED_TEMPLATES = 16
_TAIL_MARK = "\ue000headrace-continue\ue000 "


class _RefusedError(jinja2.TemplateError):
    """What a template's own `raise_exception` raises."""


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks what the assistant wrote, for training; a prompt just holds it."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _raise_exception(message: str) -> NoReturn:
    raise _RefusedError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes for HTML, which a prompt must not."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
    return environment


def load_chat_template(value: str) -> str:
    """The source of a template that is given as a file's path or as itself. Raises `HeadraceError`."""
    if "{" in value or "\n" in value:
        return value
    try:
        return Path(value).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise HeadraceError(
            f"The chat template {value!r} cannot be read: {error}",
            rule="It must be the path of a text file, or a Jinja template itself",
            fix="Check the path",
            param="chat_template",
        ) from error


class ChatTemplates:
    """A model's chat templates by name, each compiled once."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = dict(sources)
        self._environment = _environment()
        self._compile = lru_cache(maxsize=_COMPILED_TEMPLATES)(self._compile_now)

    @property
    def default(self) -> str | None:
        """The source of the template that is used when none is named."""
        return self._sources.get(DEFAULT_TEMPLATE)

    def render(
        self,
        messages: object,
        *,
        add_generation_prompt: bool,
        continue_final_message: bool,
        tools: object = None,
        chat_template: str | None = None,
        variables: Mapping[str, object],
    ) -> str:
        """The prompt for `messages`. Raises `HeadraceError` for anything that is not the template's to render."""
        _check_options(add_generation_prompt, continue_final_message, variables)
        template = self._compile(self._choose(chat_template, bool(tools)))
        clean = plain_messages(messages)
        if continue_final_message:
            clean[-1]["content"] += _TAIL_MARK
        data = {"documents": None, **plain(variables), "messages": clean, "tools": plain(tools)}
        prompt = _run(template, {**data, "add_generation_prompt": add_generation_prompt})
        return _cut_at_mark(prompt) if continue_final_message else prompt

    def _choose(self, asked: str | None, has_tools: bool) -> str:
        if asked is not None:
            return self._sources.get(asked, asked)
        name = TOOL_TEMPLATE if has_tools and TOOL_TEMPLATE in self._sources else DEFAULT_TEMPLATE
        if name in self._sources:
            return self._sources[name]
        named = f", only {', '.join(self._sources)}" if self._sources else ""
        raise HeadraceError(
            f"The model has no chat template{named}",
            rule="Chat needs one, to make a prompt of the messages",
            fix="Pass --chat-template FILE (chat_template=... in Python), or use /v1/completions or LLM.generate",
            param="messages",
        )

    def _compile_now(self, source: str) -> jinja2.Template:
        try:
            return self._environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise HeadraceError(
                f"The chat template has an error in line {error.lineno}: {error.message}",
                rule="It must be a Jinja template",
                fix="Correct the template, or pass another one with --chat-template FILE",
                param="chat_template",
            ) from error
        except (RecursionError, SyntaxError) as error:
            raise HeadraceError(
                f"The chat template cannot be compiled: {error}",
                rule="Its expressions and loops must not be nested that deep",
                fix="Pass another one with --chat-template FILE",
                param="chat_template",
            ) from error


def _check_options(add_generation_prompt: bool, continue_final_message: bool, variables: Mapping[str, object]) -> None:
    if add_generation_prompt and continue_final_message:
        raise HeadraceError(
            "add_generation_prompt and continue_final_message are both true",
            rule="The answer either starts a new message or continues the last one",
            fix="Pass add_generation_prompt=False to continue the last message",
            param="continue_final_message",
        )
    taken = [name for name in _RESERVED if name in variables]
    if taken:
        raise HeadraceError(
            f"chat_template_kwargs names {taken[0]}",
            rule="It holds a template's own variables",
            fix=f"Leave out {taken[0]}, or send it as a field of its own",
            param="chat_template_kwargs",
        )


def _run(template: jinja2.Template, data: Mapping[str, object]) -> str:
    try:
        return template.render(data)
    except _RefusedError as error:
        raise HeadraceError(
            f"The chat template refuses the messages: {error}",
            rule="Each model's template says which roles it knows, and in which order",
            fix="Change the messages, or pass another template with --chat-template FILE",
            param="messages",
        ) from error
    except Exception as error:  # somebody else's program: it may fail in any way
        raise HeadraceError(
            f"The chat template fails on these messages: {type(error).__name__}: {error}",
            fix="Check the messages' fields, or pass another template with --chat-template FILE",
            param="messages",
        ) from error


def _cut_at_mark(prompt: str) -> str:
    """The mark ends in a space: a template that strips messages drops it, and would have dropped what was before it."""
    head, mark, tail = prompt.rpartition(_TAIL_MARK.rstrip())
    if not mark:
        raise HeadraceError(
            "continue_final_message is true, and the chat template does not show the last message as it is",
            rule="Only a message that the template writes out can be continued",
            fix="Pass continue_final_message=False",
            param="continue_final_message",
        )
    return head if tail.startswith(" ") else head.rstrip()
