"""langchain-openai, unchanged, against a real server."""

import pytest
from environments import HERE, python_client, talk


@pytest.fixture(scope="module")
def found(served):
    return talk(python_client("langchain") / "python", HERE / "langchain" / "talk.py", *served.arguments)


def test_an_answer_with_its_usage(found):
    invoke = found["invoke"]
    assert invoke["text"]
    assert invoke["usage"]["input_tokens"] == 44 and invoke["usage"]["output_tokens"] == 12
    assert (invoke["metadata"]["model_name"], invoke["metadata"]["finish_reason"]) == ("tiny", "length")


def test_a_stream_is_the_same_in_pieces(found):
    assert found["stream"]["text"] == found["invoke"]["text"]
    assert found["stream"]["pieces"] > 5
    assert found["stream"]["usage"]["output_tokens"] == 12


def test_batches_and_coroutines(found):
    assert found["batch"][0] == found["invoke"]["text"] and found["batch"][1]
    assert found["async"] == {"same": True, "text": found["invoke"]["text"]}


def test_chains_options_and_logprobs(found):
    assert found["chain"]
    assert found["options"] == {"choices": 2}
    assert found["logprobs"] > 0


def test_the_older_route(found):
    assert found["completion"]["whole"] and found["completion"]["whole"] == found["completion"]["stream"]


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ("wrong key", 401, "not one of this server's"),
        ("unknown model", 404, "Served: 'tiny'"),
        ("too long", 400, "context holds"),
        ("tools", 400, "tools is not supported"),
        ("schema", 400, "response_format is not supported"),
    ],
)
def test_refusals_are_its_own_errors(found, asked, status, said):
    assert found[asked]["status"] == status
    assert said in found[asked]["message"]
