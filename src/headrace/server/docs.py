"""/openapi.json and /docs: what this server answers, for programs and for people. Nothing is loaded from elsewhere."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from html import escape

from headrace.server.http import Exchange
from headrace.server.openapi import Json, describe
from headrace.server.route import Access, Route
from headrace.server.sse import encode_json
from headrace.server.state import ServerState

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "code{font-size:.92em}summary{cursor:pointer;padding:.2rem 0}summary b{display:inline-block;min-width:4rem}"
    "table{border-collapse:collapse;margin:.3rem 0 1rem}td{border-top:1px solid #ddd;padding:.15rem .8rem .15rem 0;"
    "vertical-align:top}"
    "@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}a{color:#8bf}td{border-color:#444}}"
)


class Documentation:
    """The description of `routes`, made when it is first asked for."""

    def __init__(self, routes: Sequence[Route], root_path: str) -> None:
        own = (
            Route("GET", "/openapi.json", self.openapi, Access.PUBLIC, "This description", answer=dict[str, object]),
            Route("GET", "/docs", self.docs, Access.PUBLIC, "The same to read", content_type="text/html"),
        )
        self.routes = (*routes, *own)
        self._root_path = root_path

    async def openapi(self, state: ServerState, exchange: Exchange) -> None:
        """Answer with the OpenAPI document."""
        await exchange.answer(encode_json(self._document))

    async def docs(self, state: ServerState, exchange: Exchange) -> None:
        """Answer with a page of it."""
        page = "".join(_page(self._document)).encode()
        await exchange.answer(page, content_type=b"text/html; charset=utf-8")

    @cached_property
    def _document(self) -> Json:
        return describe(self.routes, self._root_path)


def _page(document: Json) -> Iterator[str]:
    title = f"{document['info']['title']} {document['info']['version']}"
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
    yield f"<h1>{title}</h1><p>Also as <a href=openapi.json>openapi.json</a>.</p><h2>Routes</h2>"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield from _operation(method.upper(), path, operation)
    yield "<h2>Shapes</h2>"
    for name, schema in document["components"]["schemas"].items():
        yield from _shape(name, schema)


def _operation(method: str, path: str, operation: Json) -> Iterator[str]:
    what = escape(operation["summary"])
    yield f"<details><summary><b>{method}</b> <code>{escape(path)}</code> {what}</summary><table>"
    if "requestBody" in operation:
        yield _row("body", _type(operation["requestBody"]["content"]["application/json"]["schema"]))
    for status, response in operation["responses"].items():
        for content_type, content in response["content"].items():
            yield _row(status, f"{escape(content_type)} {_type(content['schema'])}")
    if "security" in operation:
        yield _row("key", ", ".join(escape(name) for each in operation["security"] for name in each))
    yield "</table></details>"


def _shape(name: str, schema: Json) -> Iterator[str]:
    about = escape(schema.get("description", ""))
    yield f'<details id="{escape(name)}"><summary><code>{escape(name)}</code> {about}</summary><table>'
    required = schema.get("required", ())
    for field, each in schema.get("properties", {}).items():
        notes = "required" if field in required else f"default {escape(encode_json(each.get('default')).decode())}"
        yield _row(f"<code>{escape(field)}</code>", _type(each), f"{notes}. {escape(each.get('description', ''))}")
    yield "</table></details>"


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _type(schema: Json) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return escape(" or ".join(str(each) for each in schema.get("enum", [schema.get("const")])))
    if "contentSchema" in schema:
        return f"{_type(schema['contentSchema'])} as JSON"
    if "properties" in schema:
        fields = (f"{escape(name)}: {_type(each)}" for name, each in schema["properties"].items())
        return f"{{{', '.join(fields)}}}"
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return escape(str(schema.get("type", "anything")))
