"""/openapi.json, made from the route table, the models that parse requests, and the declared shapes of answers."""

from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from headrace import __version__
from headrace.core.sampling_params import MAX_COUNT, MAX_N, MIN_TOP_P
from headrace.server.protocol.answers import ErrorEnvelope
from headrace.server.protocol.unsupported import UNSUPPORTED
from headrace.server.route import Access, Route

Json = dict[str, Any]

REFERENCE = "#/components/schemas/{model}"
_SCHEME = {Access.KEY: "apiKey", Access.ADMIN: "adminKey"}
_BOUNDS = {
    "temperature": (0, 2),
    "top_p": (MIN_TOP_P, 1),
    "top_k": (-1, MAX_COUNT),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0.01, 100),
    "n": (1, MAX_N),
    "num_return_sequences": (1, MAX_N),
    "max_tokens": (0, MAX_COUNT),
    "max_completion_tokens": (1, MAX_COUNT),
    "max_new_tokens": (1, MAX_COUNT),
    "min_tokens": (0, MAX_COUNT),
    "min_new_tokens": (0, MAX_COUNT),
    "top_logprobs": (-1, MAX_COUNT),
    "prompt_logprobs": (-1, MAX_COUNT),
    "seed": (-(2**63), 2**64 - 1),
}
_OF_EVERY_BODY = (408, 413, 415)
_OF_EVERY_ROUTE = (400, 403, 500)


def describe(routes: Sequence[Route], root_path: str = "") -> Json:
    """The OpenAPI 3.1 document of `routes`."""
    schemas = _Schemas(_types(routes))
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headrace", "version": __version__, "description": "OpenAI's API, and what goes with it."},
        "servers": [{"url": root_path or "/"}],
        "paths": paths,
        "components": {"schemas": schemas.components, "securitySchemes": _security_schemes()},
    }


class _Schemas:
    """A JSON schema for each of `types`; what they share is in `components`."""

    def __init__(self, types: Iterable[Any]) -> None:
        mode: JsonSchemaMode = "validation"
        adapters: list[tuple[int, JsonSchemaMode, TypeAdapter[Any]]]
        adapters = [(id(each), mode, TypeAdapter(each)) for each in types]
        by_key, shared = TypeAdapter.json_schemas(adapters, ref_template=REFERENCE)
        self._of = {key: schema for (key, _), schema in by_key.items()}
        self.components: Json = shared.get("$defs", {})
        for schema in self.components.values():
            _say_what_is_refused(schema)
            _say_the_bounds(schema)

    def of(self, kind: object) -> Json:
        """The schema of one of the types."""
        return self._of[id(kind)]


def _types(routes: Sequence[Route]) -> Iterator[Any]:
    yield ErrorEnvelope
    for route in routes:
        yield from route.requests
        yield from (shape for shape in (route.answer, route.chunk) if shape is not None)


def _operation(route: Route, schemas: _Schemas) -> Json:
    operation: Json = {
        "summary": route.summary,
        "operationId": f"{route.method.lower()}_{route.handler.__name__}",
        "responses": {"200": _success(route, schemas)} | _failures(route, schemas),
    }
    if route.requests:
        operation["requestBody"] = {"required": True, "content": _json(_any_of(route.requests, schemas))}
    if "{" in route.path:
        name = route.path.partition("{")[2].rstrip("}")
        operation["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]
    if route.access in _SCHEME:
        operation["security"] = [{_SCHEME[route.access]: []}, {}]
    return operation


def _success(route: Route, schemas: _Schemas) -> Json:
    if route.answer is None:
        return {"description": "OK", "content": {route.content_type: {"schema": {"type": "string"}}}}
    content = _json(schemas.of(route.answer))
    if route.chunk is not None:
        content["text/event-stream"] = {"schema": _event(route, schemas)}
    return {"description": "OK", "content": content}


def _event(route: Route, schemas: _Schemas) -> Json:
    """A server-sent event. OpenAI's streams end with one whose data is no JSON."""
    data = {"anyOf": [schemas.of(route.chunk), schemas.of(ErrorEnvelope)]}
    text = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
    anything = {"anyOf": [{"const": "[DONE]"}, text]}
    return {"type": "object", "properties": {"data": anything}, "required": ["data"]}


def _failures(route: Route, schemas: _Schemas) -> Json:
    statuses = {*route.statuses, *_OF_EVERY_ROUTE}
    statuses |= set(_OF_EVERY_BODY) if route.requests else set()
    statuses |= {Access.KEY: {401}, Access.ADMIN: {401}}.get(route.access, set())
    error = _json(schemas.of(ErrorEnvelope))
    return {str(each): {"description": HTTPStatus(each).phrase, "content": error} for each in sorted(statuses)}


def _any_of(models: tuple[type[BaseModel], ...], schemas: _Schemas) -> Json:
    [first, *rest] = [schemas.of(each) for each in models]
    return {"anyOf": [first, *rest]} if rest else first


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _say_what_is_refused(schema: Json) -> None:
    for name, field in schema.get("properties", {}).items():
        if name in UNSUPPORTED and "type" not in field and "anyOf" not in field:
            field["description"] = f"Not supported. {UNSUPPORTED[name][1]}."


def _say_the_bounds(schema: Json) -> None:
    """`SamplingParams` checks them, in words that pydantic does not have."""
    for name, field in schema.get("properties", {}).items():
        if name in _BOUNDS and schema.get("additionalProperties") is False:
            field["minimum"], field["maximum"] = _BOUNDS[name]


def _security_schemes() -> Json:
    about = {
        "apiKey": "A key given by --api-key, if there are any",
        "adminKey": "The key given by --admin-key; without, on loopback, an API key",
    }
    return {name: {"type": "http", "scheme": "bearer", "description": text} for name, text in about.items()}
