"""Keys, CORS, and the prefix that a proxy shows the server under."""

import openai
import pytest

from headrace.core.errors import HeadraceError
from headrace.server.options import ServerOptions

KEY_ROUTES = ("/v1/models", "/v1/models/alias", "/load")
OPEN_ROUTES = ("/health", "/ready", "/live", "/ping", "/version", "/metrics", "/openapi.json", "/docs")
HI = [{"role": "user", "content": "Hi"}]
BODIES = {
    "/v1/chat/completions": {"messages": HI},
    "/v1/completions": {"prompt": "Hi"},
    "/invocations": {"inputs": "Hi"},
    "/tokenize": {"prompt": "Hi"},
    "/detokenize": {"tokens": [5]},
}


@pytest.fixture
def guarded(start_server):
    return start_server(say="ok", options={"api_key": ("first-key", "second-key"), "admin_key": "boss"})


def with_key(server, method, path, key, **more):
    return server.http.request(method, server.url + path, headers={"Authorization": f"Bearer {key}"}, **more)


def assert_unauthorized(response):
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
    return error


def test_what_needs_a_key_and_what_does_not(guarded):
    for path in KEY_ROUTES:
        assert_unauthorized(guarded.get(path))
        assert with_key(guarded, "GET", path, "second-key").status_code == 200
    for path, body in BODIES.items():
        assert_unauthorized(guarded.post(path, body))
        assert with_key(guarded, "POST", path, "first-key", json=body).status_code == 200
    for path in OPEN_ROUTES:
        assert guarded.get(path).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "Bearer wrong",
        "Bearer first-key-and-more",
        "Bearer first",
        "Bearer",
        "first-key",
        "Basic first-key",
        "Bearer \xff",
    ],
)
def test_wrong_keys(guarded, header):
    headers = {"Authorization": header.encode("latin-1")}
    error = assert_unauthorized(guarded.http.get(guarded.url + "/v1/models", headers=headers))
    assert "first-key" not in error["message"] and "wrong" not in error["message"]


def test_the_scheme_is_read_in_any_case(guarded):
    headers = {"authorization": "bearer  first-key"}
    assert guarded.http.get(guarded.url + "/v1/models", headers=headers).status_code == 200


def test_the_openai_client_with_a_key(guarded):
    def client(key):
        return openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=key, max_retries=0)

    answer = client("first-key").chat.completions.create(model="fake-model", messages=HI)
    assert answer.choices[0].message.content == "ok"
    with pytest.raises(openai.AuthenticationError) as caught:
        client("other").chat.completions.create(model="fake-model", messages=HI)
    assert caught.value.code == "invalid_api_key"


def test_only_the_admin_key_opens_admin_routes(guarded):
    path = "/reset_prefix_cache"
    assert_unauthorized(guarded.post(path, {}))
    assert_unauthorized(with_key(guarded, "POST", path, "first-key"))
    assert with_key(guarded, "POST", path, "boss").status_code == 200
    assert with_key(guarded, "GET", "/v1/models", "boss").status_code == 200


def test_without_an_admin_key_only_this_machine_may_change_the_server(start_server):
    local = start_server(say="x")
    assert local.post("/reset_prefix_cache", {}).status_code == 200
    page = local.http.post(local.url + "/reset_prefix_cache", headers={"Origin": "https://evil.example"})
    assert (page.status_code, page.json()["error"]["type"]) == (403, "permission_error")
    anywhere = start_server(say="x", options={"host": "0.0.0.0", "api_key": ("k",)})
    response = with_key(anywhere, "POST", "/reset_prefix_cache", "k")
    assert response.status_code == 403
    assert "--admin-key" in response.json()["error"]["message"]


def test_without_an_admin_key_an_api_key_changes_the_server_where_there_are_any(start_server):
    local = start_server(say="x", options={"api_key": ("k",)})
    path = "/reset_prefix_cache"
    assert_unauthorized(local.post(path, {}))
    assert_unauthorized(with_key(local, "POST", path, "other"))
    assert with_key(local, "POST", path, "k").status_code == 200


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For"])
def test_what_a_proxy_passes_on_is_not_from_this_machine(server, header):
    response = server.http.post(server.url + "/reset_prefix_cache", headers={header: "203.0.113.7"})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "admin_key_required")
    assert "proxy" in response.json()["error"]["message"]


def called(server, host):
    """The answer to a request that calls the server `host`."""
    return server.http.get(server.url + "/v1/models", headers={"Host": host})


LOOPBACK_NAMES = ("127.0.0.1:80", "localhost:5", "LOCALHOST.", "app.localhost", "[::1]:80", "[::1]", "127.9.9.9", "")


def test_a_page_whose_name_leads_here_is_not_answered(server):
    for host in LOOPBACK_NAMES:
        assert called(server, host).status_code == 200, host
    for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1"):
        response = called(server, host)
        assert (response.status_code, response.json()["error"]["code"]) == (403, "host_not_allowed")
        assert "--allowed-hosts" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "options",
    [{"host": "0.0.0.0"}, {"api_key": ("k",)}, {"allowed_hosts": ("*",)}, {"allowed_hosts": ("App.example",)}],
)
def test_where_other_names_are_fine(start_server, options):
    server = start_server(say="x", options=options)
    assert called(server, "app.example:443").status_code != 403
    assert called(server, "localhost").status_code != 403
    others = 403 if options.get("allowed_hosts") == ("App.example",) else called(server, "localhost").status_code
    assert called(server, "evil.example").status_code == others


@pytest.mark.parametrize("name", ["", "http://app.example", "app.example:80", "*.example"])
def test_what_is_no_name_of_a_host(name):
    with pytest.raises(HeadraceError, match="--allowed-hosts"):
        ServerOptions(allowed_hosts=(name,))


PREFLIGHT = {
    "Origin": "https://app.example",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


def test_a_named_origin_may_read_answers_and_streams(start_server):
    server = start_server(say="ok", options={"allowed_origins": ("https://app.example",), "api_key": ("k",)})
    preflight = server.http.options(server.url + "/v1/chat/completions", headers=PREFLIGHT)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    assert preflight.headers["access-control-allow-headers"] == "authorization,content-type"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    headers = {"Origin": "https://app.example", "Authorization": "Bearer k"}
    for stream in (False, True):
        answer = server.http.post(
            server.url + "/v1/chat/completions", headers=headers, json={"messages": HI, "stream": stream}
        )
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert answer.headers["vary"] == "Origin"
    refused = server.http.get(server.url + "/v1/models", headers={"Origin": "https://app.example"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://app.example")


def test_other_origins_may_not(start_server, server):
    named = start_server(say="ok", options={"allowed_origins": ("https://app.example",)})
    for each in (named, server):
        answer = each.http.get(each.url + "/version", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in answer.headers
    preflight = server.http.options(server.url + "/v1/models", headers=PREFLIGHT)
    assert (preflight.status_code, "access-control-allow-origin" in preflight.headers) == (405, False)


def test_every_origin(start_server):
    server = start_server(say="ok", options={"allowed_origins": ("*",), "allowed_methods": ("GET",)})
    assert server.get("/version").headers["access-control-allow-origin"] == "*"
    preflight = server.http.options(server.url + "/version", headers=PREFLIGHT)
    assert preflight.headers["access-control-allow-methods"] == "GET"


def test_credentials_are_allowed_for_a_named_origin(start_server):
    server = start_server(say="ok", options={"allowed_origins": ("http://a.example",), "allow_credentials": True})
    answer = server.http.get(server.url + "/version", headers={"Origin": "http://a.example"})
    assert answer.headers["access-control-allow-credentials"] == "true"


def test_a_prefix_that_a_proxy_adds_or_removes(start_server):
    server = start_server(say="ok", options={"root_path": "/llm"})
    for path in ("/llm/v1/models", "/v1/models", "/llm/v1/models/alias"):
        assert server.get(path).status_code == 200
    assert server.get("/llm/openapi.json").json()["servers"] == [{"url": "/llm"}]
    assert server.get("/llmv1/models").status_code == 404
