"""schemathesis over our own /openapi.json: whatever is sent, no answer is a 5xx, and each has its declared shape."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from running_server import RunningServer, model_text, tokenizer_directory
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from headrace.server.model_text import ModelText
from headrace.server.options import ServerOptions
from headrace.server.protocol import answers
from headrace.server.protocol.unsupported import UNSUPPORTED
from headrace.server.routes import ROUTES
from headrace.testing.fake_engine import Script

__all__ = ["model_text", "tokenizer_directory"]

EXAMPLES = 500
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
WITH_INPUT = {(route.path, route.method) for route in ROUTES if route.requests or "{" in route.path}


@pytest.fixture(scope="module")
def fake_server(model_text: ModelText) -> Iterator[RunningServer]:
    tokens = model_text.tokenizer.encode("Hello wörld 🙂!", add_special_tokens=False)
    script = Script(token_ids=tokens, vocab_size=model_text.tokenizer.vocab_size)
    server = RunningServer(script, model_text, ServerOptions()).wait_ready()
    yield server
    server.stop()


GOOD: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/continue": {"endpoint": "completions", "prompt_token_ids": [5, 6], "output_token_ids": [7], "seed": 1},
    "/invocations": {"inputs": "Hi"},
    "/tokenize": {"prompt": "Hi"},
    "/detokenize": {"tokens": [5, 6]},
}


def served(body: Any, path: str, num_fields: int) -> Any:
    """A good body with a few fields of `body`, none of them refused by name or of another model: it gets further."""
    if not isinstance(body, dict):
        return body
    known = {name: value for name, value in body.items() if name not in UNSUPPORTED and name not in ("model", "prompt")}
    return dict(list(known.items())[:num_fields]) | GOOD.get(path, {})


def check_events(text: str, event: TypeAdapter[Any]) -> None:
    events = [line.removeprefix("data:").strip() for line in text.split("\n\n") if line]
    for each in events:
        if each != "[DONE]":
            event.validate_json(each)


@pytest.mark.parametrize(("path", "method"), sorted({(route.path, route.method) for route in ROUTES}))
def test_every_answer_is_as_declared(fake_server: RunningServer, path: str, method: str) -> None:
    document = fake_server.get("/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=fake_server.url)
    operation = schema[path][method]
    good = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    cases = good
    if (path, method) in WITH_INPUT:
        cases = st.one_of(good, good, operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))

    [route] = [each for each in ROUTES if (each.path, each.method) == (path, method)]
    event: TypeAdapter[Any] = TypeAdapter(route.chunk | answers.ErrorEnvelope if route.chunk else None)

    @given(case=cases, num_fields=st.none() | st.integers(0, 4))
    @settings(
        max_examples=EXAMPLES if (path, method) in WITH_INPUT else 20,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def check(case: schemathesis.Case, num_fields: int | None) -> None:
        if num_fields is not None:
            case.body = served(case.body, path, num_fields)
        response = case.call_and_validate(checks=CHECKS, timeout=20)
        if response.headers["content-type"][0].startswith("text/event-stream"):
            check_events(response.text, event)

    check()
    assert fake_server.get("/load").json()["server_load"] == 0
