"""/v1/models, /tokenize, /detokenize, /health, /ready, /version, /load."""

import headrace


def test_models_lists_every_name(server):
    models = server.client().models.list().data
    assert [model.id for model in models] == ["fake-model", "alias"]
    card = models[0].model_dump()
    assert (card["object"], card["owned_by"], card["root"], card["parent"]) == ("model", "headrace", "somewhere", None)
    assert card["max_model_len"] == 256
    assert card["permission"][0]["object"] == "model_permission"


def test_one_model(server):
    assert server.client().models.retrieve("alias").id == "alias"
    assert server.get("/v1/models/other").status_code == 404


def test_tokenize_text_and_back(server):
    answer = server.post("/tokenize", {"prompt": "wörld 🙂", "return_token_strs": True}).json()
    assert answer["count"] == len(answer["tokens"]) == len("wörld 🙂".encode())
    assert answer["token_strs"][0] == "w"
    assert answer["max_model_len"] == 256
    assert server.post("/detokenize", {"tokens": answer["tokens"]}).json() == {"prompt": "wörld 🙂"}


def test_tokenize_messages_uses_the_template(server):
    answer = server.post("/tokenize", {"messages": [{"role": "user", "content": "Hi"}]}).json()
    text = server.post("/detokenize", {"tokens": answer["tokens"]}).json()["prompt"]
    assert text == "<|im_start|>user\nHi<|im_end|><|im_start|>assistant\n"
    assert answer["token_strs"] is None


def test_tokenize_refuses_what_it_does_not_know(server):
    for path, body, param in (
        ("/tokenize", {"prompt": "a", "x": 1}, "x"),
        ("/tokenize", {"messages": [{"role": "user", "content": "a"}], "x": 1}, "x"),
        ("/tokenize", {}, "prompt"),
        ("/detokenize", {"tokens": [5, 9_999]}, "tokens"),
        ("/detokenize", {"tokens": "ab"}, "tokens"),
    ):
        response = server.post(path, body)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_version_health_ready_load(server):
    assert server.get("/version").json() == {"version": headrace.__version__}
    assert server.get("/health").status_code == 200
    assert server.get("/ready").status_code == 200
    assert server.get("/load").json() == {"server_load": 0, "waiting_requests": 0, "waiting_tokens": 0}
