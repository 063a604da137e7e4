"""An answer of the real server is continued by another one: what a gateway does when a replica is lost."""

import json
from collections.abc import Callable, Iterator

import httpx
import pytest
from headrace_server import HeadraceServer, wait_until
from scraped import scrape

FLOAT32 = ("--dtype", "float32", "--quantization", "none", "--max-model-len", "1024")
ASK = {"stream": True, "return_token_ids": True, "max_tokens": 24, "seed": 2**62, "temperature": 1.0}
MESSAGES = [{"role": "user", "content": "Answer with many emoji 🙂🎉 and flags: how was your day?"}]
FAMILY = "🎉👩\u200d👧🙂"
CASES = {
    "chat at temperature 1": ("chat.completions", {"messages": MESSAGES}, {"frequency_penalty": 0.3}),
    "emoji, with a stop string": ("completions", {"prompt": FAMILY * 3}, {"stop": [FAMILY * 2 + "🎉👩"]}),
    "a count with a stop string": (
        "completions",
        {"prompt": "1, 2, 3, 4,"},
        {"stop": [", 10"], "temperature": 0, "max_tokens": 40},
    ),
}


def choices(server: HeadraceServer, path: str, body: dict[str, object]) -> Iterator[dict[str, object]]:
    with httpx.stream("POST", server.url + path, json=body, timeout=300) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line.startswith("data: {"):
                yield from json.loads(line[6:])["choices"]


def text_of(parts: list[dict]) -> str:
    return "".join(part["text"] if "text" in part else part["delta"].get("content", "") for part in parts)


def ids_of(parts: list[dict]) -> list[int]:
    return [token for part in parts for token in part.get("token_ids", ())]


@pytest.fixture(scope="module")
def two_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HeadraceServer, HeadraceServer]]:
    running = [HeadraceServer(tmp_path_factory.mktemp("server"), *FLOAT32) for _ in range(2)]
    try:
        yield running[0].wait_ready(), running[1].wait_ready()
    finally:
        for server in running:
            server.process.terminate()
        for server in running:
            server.process.wait(60)


@pytest.mark.parametrize(("endpoint", "asked", "fields"), CASES.values(), ids=list(CASES))
def test_another_server_goes_on_after_every_token(two_servers, endpoint, asked, fields) -> None:
    first, second = two_servers
    path = "/v1/" + endpoint.replace(".", "/")
    whole = list(choices(first, path, {**ASK, **fields, **asked}))
    prompt = next(part["prompt_token_ids"] for part in whole if "prompt_token_ids" in part)
    assert len(ids_of(whole)) > 10
    for cut in range(1, len(whole)):
        before = ids_of(whole[:cut])
        if not before or whole[cut - 1]["finish_reason"]:
            continue
        body = {**ASK, **fields, "endpoint": endpoint, "prompt_token_ids": prompt, "output_token_ids": before}
        rest = list(choices(second, "/v1/continue", body))
        assert text_of(whole[:cut]) + text_of(rest) == text_of(whole)
        assert before + ids_of(rest) == ids_of(whole)
        assert rest[-1]["finish_reason"] == whole[-1]["finish_reason"]


def test_each_choice_of_several_is_continued_with_its_own_noise(two_servers) -> None:
    first, second = two_servers
    asked = {**ASK, "messages": MESSAGES, "n": 3}
    told: dict[int, list[dict]] = {0: [], 1: [], 2: []}
    for part in choices(first, "/v1/chat/completions", asked):
        told[part["index"]].append(part)
    assert len({text_of(parts) for parts in told.values()}) == 3
    for index, parts in told.items():
        before = ids_of(parts)[:7]
        body = {**ASK, "endpoint": "chat.completions", "output_token_ids": before, "index": index}
        rest = list(choices(second, "/v1/continue", {**body, "prompt_token_ids": parts[0]["prompt_token_ids"]}))
        assert before + ids_of(rest) == ids_of(parts)


def test_a_replica_that_dies_in_mid_stream_is_replaced(start_server: Callable[..., HeadraceServer]) -> None:
    """As a gateway would: read until the engine is killed, continue elsewhere, compare with an answer in one piece."""
    asked = {**ASK, "messages": MESSAGES, "max_tokens": 60, "ignore_eos": True}
    victim = start_server(*FLOAT32, "--max-engine-restarts", "0")
    engines, told = [victim.engine], list[dict]()
    with httpx.stream("POST", f"{victim.url}/v1/chat/completions", json=asked, timeout=300) as response:
        for line in response.iter_lines():
            event = json.loads(line[6:]) if line.startswith("data: {") else {}
            told += event.get("choices", ())
            if len(ids_of(told)) >= 9 and engines:
                engines.pop().kill()
            if "error" in event:
                break
        else:
            pytest.fail("the stream of a dead engine ended without an error")
    survivor = start_server(*FLOAT32)
    whole = list(choices(survivor, "/v1/chat/completions", asked))
    before = ids_of(told)
    body = {**asked, "endpoint": "chat.completions", "prompt_token_ids": told[0]["prompt_token_ids"]}
    del body["messages"]
    rest = list(choices(survivor, "/v1/continue", {**body, "output_token_ids": before}))
    assert 9 <= len(before) < 60
    assert text_of(told) + text_of(rest) == text_of(whole)
    assert before + ids_of(rest) == ids_of(whole)


def test_a_client_that_leaves_a_continuation_frees_its_blocks(two_servers) -> None:
    _, server = two_servers
    body = {
        **ASK,
        "endpoint": "completions",
        "prompt_token_ids": [1, 2, 3],
        "output_token_ids": [4, 5],
        "max_tokens": 900,
    }
    with httpx.stream("POST", f"{server.url}/v1/continue", json={**body, "ignore_eos": True}, timeout=300) as response:
        next(response.iter_lines())
    wait_until(lambda: scrape(server.url)("vllm:num_requests_running") == 0, 10)
    wait_until(lambda: scrape(server.url)("vllm:kv_cache_usage_perc") == 0, 10)
