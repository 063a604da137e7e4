"""llama-index-llms-openai-like, unchanged, against a real server."""

import pytest
from environments import HERE, python_client, talk


@pytest.fixture(scope="module")
def found(served):
    return talk(python_client("llamaindex") / "python", HERE / "llamaindex" / "talk.py", *served.arguments)


def test_an_answer_with_its_usage(found):
    assert found["chat"]["text"]
    assert (found["chat"]["prompt"], found["chat"]["completion"]) == (44, 12)


def test_a_stream_is_the_same_in_pieces(found):
    stream = found["stream"]
    assert stream["text"] == stream["joined"] == found["chat"]["text"]
    assert stream["pieces"] > 5


def test_coroutines(found):
    assert found["async"] == [found["chat"]["text"]] * 4


def test_the_older_route_and_options(found):
    assert found["completion"]["whole"] and found["completion"]["whole"] == found["completion"]["stream"]
    assert found["complete through chat"] and found["options"]


@pytest.mark.parametrize(
    ("asked", "error", "status", "said"),
    [
        ("wrong key", "AuthenticationError", 401, "not one of this server's"),
        ("unknown model", "NotFoundError", 404, "Served: 'tiny'"),
        ("too long", "BadRequestError", 400, "context holds"),
    ],
)
def test_refusals_are_its_own_errors(found, asked, error, status, said):
    assert (found[asked]["class"], found[asked]["status"]) == (error, status)
    assert said in found[asked]["message"]
