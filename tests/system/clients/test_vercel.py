"""The Vercel AI SDK (npm: ai, @ai-sdk/openai-compatible), unchanged, against a real server."""

import pytest
from environments import node_client, talk


@pytest.fixture(scope="module")
def found(served):
    return talk("node", node_client("vercel") / "talk.mjs", *served.arguments)


def test_an_answer_with_its_usage(found):
    chat = found["chat"]
    assert chat["text"] and chat["reason"] == "length"
    assert (chat["usage"]["inputTokens"], chat["usage"]["outputTokens"]) == (44, 12)


def test_a_stream_is_the_same_in_pieces(found):
    stream = found["stream"]
    assert stream["text"] == found["chat"]["text"] and stream["reason"] == "length"
    assert stream["pieces"] > 5
    assert (stream["usage"]["inputTokens"], stream["usage"]["outputTokens"]) == (44, 12)


def test_several_at_once_and_options(found):
    assert found["parallel"] == [found["chat"]["text"]] * 3
    assert found["options"] in ("stop", "length")


def test_the_older_route(found):
    assert found["completion"]["whole"] == found["completion"]["stream"]["text"] != ""


def test_a_stream_can_be_left(found):
    assert found["stopped"] == 3


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ("wrong key", 401, "not one of this server's"),
        ("unknown model", 404, "Served: 'tiny'"),
        ("too long", 400, "context holds"),
        ("tools", 400, "tools is not supported"),
        ("object", 400, "response_format is not supported"),
        ("embedding", 404, "/v1/embeddings"),
    ],
)
def test_refusals_are_its_own_errors(found, asked, status, said):
    assert (found[asked]["class"], found[asked]["status"]) == ("AI_APICallError", status)
    assert said in found[asked]["message"]


def test_an_error_of_a_stream_is_told(found):
    assert found["error in a stream"] == 401
