"""The route table: every path that is answered, and those that other servers have and this one does not."""

from collections.abc import Mapping, Sequence

from headrace.core.errors import ErrorKind
from headrace.server.chat import chat_completions
from headrace.server.completions import completions
from headrace.server.continuation import continue_answer
from headrace.server.door import admitted
from headrace.server.errors import ApiError
from headrace.server.health import health, live, load, ping, ready, reset_prefix_cache, version
from headrace.server.invocations import invocations
from headrace.server.models import MODELS_PATH, list_models, show_model
from headrace.server.protocol import answers
from headrace.server.protocol.chat import ChatCompletionRequest
from headrace.server.protocol.completions import CompletionRequest
from headrace.server.protocol.continuation import ContinueChatRequest, ContinueCompletionRequest
from headrace.server.protocol.invocations import GenerateRequest
from headrace.server.protocol.tokens import DetokenizeRequest, TokenizeChatRequest, TokenizeTextRequest
from headrace.server.route import Access, Route
from headrace.server.scrape import metrics
from headrace.server.tokens import detokenize, tokenize

GENERATION_ERRORS = (400, 404, 413, 415, 429, 503)
TEXT_ERRORS = (400, 404, 413, 415, 429, 503)

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/v1/chat/completions",
        admitted(chat_completions),
        Access.KEY,
        "Answer messages",
        requests=(ChatCompletionRequest,),
        answer=answers.ChatCompletion,
        chunk=answers.ChatCompletionChunk,
        statuses=GENERATION_ERRORS,
    ),
    Route(
        "POST",
        "/v1/completions",
        admitted(completions),
        Access.KEY,
        "Continue one or more prompts",
        requests=(CompletionRequest,),
        answer=answers.Completion,
        chunk=answers.Completion,
        statuses=GENERATION_ERRORS,
    ),
    Route(
        "POST",
        "/invocations",
        admitted(invocations),
        Access.KEY,
        "The body of either route above, or Hugging Face's inputs and parameters (SageMaker)",
        requests=(GenerateRequest, ChatCompletionRequest, CompletionRequest),
        answer=answers.Invocation,
        chunk=answers.InvocationChunk,
        statuses=GENERATION_ERRORS,
    ),
    Route(
        "POST",
        "/v1/continue",
        admitted(continue_answer),
        Access.KEY,
        "Internal, for gateways: go on with an answer that was cut",
        requests=(ContinueChatRequest, ContinueCompletionRequest),
        answer=answers.Continued,
        chunk=answers.ContinuedChunk,
        statuses=GENERATION_ERRORS,
    ),
    Route("GET", MODELS_PATH, list_models, Access.KEY, "What is served", answer=answers.ModelList, statuses=(503,)),
    Route(
        "GET",
        f"{MODELS_PATH}/{{model}}",
        show_model,
        Access.KEY,
        "One of them",
        answer=answers.ModelCard,
        statuses=(404, 503),
    ),
    Route(
        "POST",
        "/tokenize",
        tokenize,
        Access.KEY,
        "The token ids of a text or of messages",
        requests=(TokenizeTextRequest, TokenizeChatRequest),
        answer=answers.Tokenized,
        statuses=TEXT_ERRORS,
    ),
    Route(
        "POST",
        "/detokenize",
        detokenize,
        Access.KEY,
        "The text of token ids",
        requests=(DetokenizeRequest,),
        answer=answers.Detokenized,
        statuses=TEXT_ERRORS,
    ),
    Route("GET", "/health", health, Access.PUBLIC, "Whether the engine works", answer=answers.Health, statuses=(503,)),
    Route("GET", "/ready", ready, Access.PUBLIC, "Whether it takes requests", answer=answers.Health, statuses=(503,)),
    Route("GET", "/live", live, Access.PUBLIC, "Whether the server answers", answer=answers.Empty),
    Route(
        "GET", "/ping", ping, Access.PUBLIC, "The same as /ready (SageMaker)", answer=answers.Health, statuses=(503,)
    ),
    Route(
        "POST", "/ping", ping, Access.PUBLIC, "The same as /ready (SageMaker)", answer=answers.Health, statuses=(503,)
    ),
    Route("GET", "/version", version, Access.PUBLIC, "Which Headrace this is", answer=answers.Version),
    Route("GET", "/metrics", metrics, Access.PUBLIC, "Every metric (Prometheus)", content_type="text/plain"),
    Route("GET", "/load", load, Access.KEY, "How many sequences are being worked on", answer=answers.Load),
    Route(
        "POST",
        "/reset_prefix_cache",
        reset_prefix_cache,
        Access.ADMIN,
        "Forget every cached prefix that no running request holds",
        answer=answers.Empty,
        statuses=(503,),
    ),
)

NOT_BUILT = {
    "/v1/responses": "Use /v1/chat/completions",
    "/v1/messages": "Use /v1/chat/completions",
    "/v1/embeddings": "The models that are served here generate text",
    "/v1/rerank": "The models that are served here generate text",
    "/v1/score": "The models that are served here generate text",
    "/v1/audio/transcriptions": "The models that are served here generate text",
    "/pooling": "The models that are served here generate text",
    "/classify": "The models that are served here generate text",
}
"""Path that other servers have -> what there is instead."""


class RouteTable:
    """Finds the route of a request."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._by_path: dict[str, dict[str, Route]] = {}
        for route in routes:
            self._by_path.setdefault(route.path, {})[route.method] = route
        self._prefixes = {path.partition("{")[0]: each for path, each in self._by_path.items() if "{" in path}

    def find(self, method: str, path: str) -> Route:
        """The route. Raises a 404 or a 405 that says what there is; HEAD goes with GET."""
        route = self._by_path.get(path, {}).get(method)  # the usual case
        return route if route is not None else self._find(method, path)

    def _find(self, method: str, path: str) -> Route:
        methods = self._methods(path.rstrip("/"))
        if method == "HEAD":
            method = "GET"
        if method in methods:
            return methods[method]
        allowed = sorted({*methods, "HEAD"} if "GET" in methods else methods)
        raise ApiError(
            f"{method} is not allowed at {path}",
            fix=f"Use {' or '.join(methods)}",
            status=405,
            headers={"Allow": ", ".join(allowed)},
        )

    def _methods(self, path: str) -> Mapping[str, Route]:
        if path in self._by_path:
            return self._by_path[path]
        for prefix, methods in self._prefixes.items():
            if path.startswith(prefix) and len(path) > len(prefix):
                return methods
        if path in NOT_BUILT:
            what, fix = f"{path} is not supported yet", NOT_BUILT[path]
        else:
            what, fix = f"There is nothing at {path or '/'}", f"Served: {', '.join(self._by_path)}"
        raise ApiError(what, fix=fix, kind=ErrorKind.NOT_FOUND)
