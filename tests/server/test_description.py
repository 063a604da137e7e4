"""/openapi.json and /docs say what the server answers."""

import re

from headrace.server.protocol.chat import ChatCompletionRequest
from headrace.server.routes import ROUTES


def test_every_route_is_described(server):
    paths = server.get("/openapi.json").json()["paths"]
    assert {(route.path, route.method.lower()) for route in ROUTES} <= {
        (path, method) for path, methods in paths.items() for method in methods
    }


def test_every_field_of_a_body_is_described(server):
    schemas = server.get("/openapi.json").json()["components"]["schemas"]
    described = schemas["ChatCompletionRequest"]["properties"]
    assert described.keys() == ChatCompletionRequest.model_fields.keys()
    assert described["tools"]["description"].startswith("Not supported")


def test_all_references_lead_somewhere(server):
    document = server.get("/openapi.json")
    schemas = document.json()["components"]["schemas"]
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', document.text))
    assert names and names <= schemas.keys()


def test_errors_are_declared_on_every_route(server):
    document = server.get("/openapi.json").json()
    for methods in document["paths"].values():
        for operation in methods.values():
            error = operation["responses"]["500"]["content"]["application/json"]["schema"]
            assert error == {"$ref": "#/components/schemas/ErrorEnvelope"}
    assert "401" in document["paths"]["/v1/models"]["get"]["responses"]
    assert "403" in document["paths"]["/reset_prefix_cache"]["post"]["responses"]


def test_the_page_shows_every_route_and_loads_nothing(server):
    response = server.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    for route in ROUTES:
        assert route.path in response.text
    assert "<script" not in response.text
    assert not re.findall(r"(?:src|href)=[\"']?https?:", response.text)
