"""Messages become the prompt that the model's template makes of them, and whatever is wrong with them is said."""

import datetime

import pytest
import transformers
from pydantic import BaseModel
from small_tokenizers import CHATML

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.text.parts import TokenizerParts
from headrace.text.tokenizer import Tokenizer

CHAT = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def chat(byte_level):
    """Render by a template of the test's own."""

    def render(template, messages=CHAT, **options):
        return byte_level.apply_chat_template(messages, chat_template=template, **options)

    return render


def refusal(call, *arguments, **options):
    with pytest.raises(HeadraceError) as caught:
        call(*arguments, **options)
    assert caught.value.kind is ErrorKind.INVALID_REQUEST
    return str(caught.value)


def test_the_models_own_template(byte_level):
    assert byte_level.chat_template == CHATML
    prompt = "<|im_start|>user\nHi<|im_end|>\n"
    assert byte_level.apply_chat_template(CHAT, add_generation_prompt=False) == prompt
    assert byte_level.apply_chat_template(CHAT) == prompt + "<|im_start|>assistant\n"
    ids = byte_level.apply_chat_template(CHAT, tokenize=True)
    assert ids[0] == byte_level.bos_token_id
    assert byte_level.decode(ids, skip_special_tokens=False) == prompt + "<|im_start|>assistant\n"


def test_what_templates_of_the_hub_use(chat):
    assert chat("{{ bos_token }}{{ eos_token }}{{ pad_token }}") == "<|im_start|><|im_end|>"
    assert chat("{{ {'b': 'é<', 'a': 1} | tojson }}") == '{"b": "é<", "a": 1}'
    assert chat("{{ [1] | tojson(indent=2) }}") == "[\n  1\n]"
    assert chat("{{ strftime_now('%Y') }}") == str(datetime.datetime.now().year)
    assert chat("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"
    assert chat("{% generation %}{{ messages[0].content }}{% endgeneration %}!") == "Hi!"
    assert chat("  {% if true %}\nx\n  {% endif %}\ny") == "x\ny"
    assert chat("{{ tools is none }}{{ documents is none }}{{ thinking }}", thinking=False) == "TrueTrueFalse"
    assert chat("{% set ns = namespace(n=0) %}{% set ns.n = 2 %}{{ ns.n }}") == "2"


@pytest.mark.parametrize("content", ["Sure", "Sure ", " Sure", ""])
@pytest.mark.parametrize("written", ["m.content", "m.content | trim"])
def test_the_last_message_can_be_continued_as_transformers_does_it(chat, byte_level_dir, content, written):
    template = "{% for m in messages %}[{{ m.role }}] {{ " + written + " }}\n{% endfor %}"
    messages = [*CHAT, {"role": "assistant", "content": content}]
    theirs = transformers.AutoTokenizer.from_pretrained(byte_level_dir).apply_chat_template(
        messages, chat_template=template, continue_final_message=True, tokenize=False
    )
    assert chat(template, messages, add_generation_prompt=False, continue_final_message=True) == theirs


def test_text_parts_are_joined(chat):
    parts = [{"type": "text", "text": "one"}, {"type": "input_text", "text": "two"}]
    assert chat("{{ messages[0].content }}", [{"role": "user", "content": parts}]) == "one\ntwo"


def test_tool_calls_reach_the_template_as_data(chat):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    messages = [{"role": "assistant", "tool_calls": [call]}]
    template = "{{ messages[0].tool_calls[0].function.arguments.x + 1 }}{{ messages[0].content }}"
    assert chat(template, messages) == "2"
    call["function"]["arguments"] = "{x"
    assert "messages[0].tool_calls[0].function.arguments is '{x'. It must be JSON" in refusal(chat, template, messages)


def test_messages_may_be_pydantic_models(chat):
    class Message(BaseModel):
        role: str
        content: str

    assert chat("{{ messages[0].content }}", [Message(role="user", content="Hi")]) == "Hi"


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ("hi", "messages is 'hi'. It must be a list"),
        ({"role": "user"}, "must be a list"),
        (None, "must be a list"),
        ([], "messages is empty"),
        (["hi"], "messages[0] is 'hi'. A message is a dict"),
        ([{"content": "x"}], "messages[0] has the role None"),
        ([{"role": 3, "content": "x"}], "messages[0] has the role 3"),
        ([*CHAT, {"role": "user"}], "messages[1] has no content"),
        ([{"role": "user", "content": 3}], "messages[0].content is 3"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            "content[0] of type 'image_url' is not",
        ),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text is None"),
        ([{"role": "user", "content": [7]}], "messages[0].content[0] is 7"),
        ([{"role": "user", "content": "x", "extra": object()}], "holds a object"),
    ],
)
def test_messages_of_the_wrong_shape_are_refused(chat, messages, said):
    assert said in refusal(chat, "{{ messages[0].content }}", messages)


def test_messages_nested_without_end_are_refused(chat):
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert "nested too deep" in refusal(chat, "x", [{"role": "user", "content": "x", "extra": deep}])


def test_what_a_template_says_of_a_role_is_told(chat):
    template = (
        "{% if messages[0].role != 'user' %}{{ raise_exception('Only user, please: ' + messages[0].role) }}{% endif %}"
    )
    said = refusal(chat, template, [{"role": "wizard", "content": "x"}])
    assert "refuses the messages: Only user, please: wizard" in said


def test_a_broken_template_is_told_with_its_line(chat):
    assert "error in line 2" in refusal(chat, "x\n{% if %}")
    assert "No filter named 'nonesuch'" in refusal(chat, "{{ 1 | nonesuch }}")
    assert "fails on these messages: TypeError" in refusal(chat, "{{ messages + 1 }}")


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ strftime_now.__globals__ }}",
        "{% for i in range(10**9) %}{% endfor %}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(chat, template):
    try:
        assert chat(template) == ""
    except HeadraceError as error:
        assert "fails on these messages" in str(error)


def test_options_that_contradict_each_other_are_refused(chat):
    assert "both true" in refusal(chat, "x", continue_final_message=True)
    assert "does not show the last message" in refusal(
        chat, "x", continue_final_message=True, add_generation_prompt=False
    )


def test_a_clients_variables_reach_the_template_and_nothing_else(chat):
    assert chat("{{ thinking }}", chat_template_kwargs={"thinking": False}) == "False"
    for name in ("messages", "chat_template", "tokenize"):
        said = refusal(chat, "x", chat_template_kwargs={name: "{{ 7 }}"})
        assert f"chat_template_kwargs names {name}" in said


def test_without_a_template_the_ways_out_are_named(sentencepiece):
    said = refusal(sentencepiece.apply_chat_template, CHAT)
    assert "no chat template" in said
    assert "--chat-template" in said
    assert "/v1/completions" in said
    assert sentencepiece.chat_template is None


def test_a_template_is_compiled_once(byte_level, monkeypatch):
    tokenizer = Tokenizer(TokenizerParts(byte_level.backend, {}, {"default": "{{ messages[0].content }}"}))
    tokenizer.apply_chat_template(CHAT)
    monkeypatch.setattr("jinja2.Environment.compile", None)
    assert tokenizer.apply_chat_template(CHAT) == "Hi"
