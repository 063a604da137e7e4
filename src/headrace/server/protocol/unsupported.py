"""Fields that are known by name and not served: refused, unless they ask for nothing, and never ignored in silence."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel

from headrace.core.sampling_params import REFUSED_FIELDS
from headrace.server.errors import ApiError

Unsupported = Annotated[Any, "known by name, refused unless it asks for nothing"]

Accepts = Callable[[Any], bool]


def asks_for(*harmless: object) -> Accepts:
    """Whether a value is one of those that ask for nothing special."""
    return lambda value: any(value == each and type(value) is type(each) for each in harmless)


def _is_text_format(value: object) -> bool:
    return isinstance(value, dict) and value.get("type") == "text"


_OF_SAMPLING: dict[str, tuple[object, ...]] = {
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "best_of": (1,),
    "use_beam_search": (False,),
    "length_penalty": (1, 1.0),
    "early_stopping": (False,),
    "truncate_prompt_tokens": (),
    "logprob_token_ids": ([],),
    "thinking_token_budget": (),
    "repetition_detection": (),
    "stream_interval": (1,),
}
"""Fields that `SamplingParams` refuses too, in its own words -> the values that ask for nothing special."""

UNSUPPORTED: dict[str, tuple[Accepts, str]] = {
    **{name: (asks_for(*values), REFUSED_FIELDS[name]) for name, values in _OF_SAMPLING.items()},
    "response_format": (_is_text_format, "Use {'type': 'text'}: grammars are not built yet"),
    "tools": (asks_for([]), "Leave it out: tool calls are not built yet"),
    "tool_choice": (asks_for("none"), "Use 'none' or leave it out: tool calls are not built yet"),
    "functions": (asks_for([]), "Leave it out: tool calls are not built yet"),
    "function_call": (asks_for("none"), "Use 'none' or leave it out: tool calls are not built yet"),
    "service_tier": (asks_for("auto", "default"), "Use 'auto': there is one tier"),
    "store": (asks_for(False), "Use false: answers are not stored"),
    "modalities": (asks_for(["text"]), "Use ['text']: the models are text models"),
    "audio": (asks_for(), "Leave it out: the models are text models"),
    "prediction": (asks_for(), "Leave it out: predicted outputs are not built"),
    "reasoning_effort": (asks_for(), "Leave it out; pass what the model's template knows in chat_template_kwargs"),
    "verbosity": (asks_for(), "Leave it out, and ask for brevity in a message"),
    "moderation": (asks_for(), "Leave it out: nothing is moderated here"),
    "web_search_options": (asks_for(), "Leave it out: the server does not search the web"),
    "suffix": (asks_for(""), "Leave it out: filling in the middle is not supported"),
    "documents": (asks_for([]), "Put the documents into a message"),
    "chat_template": (asks_for(), "Start the server with --chat-template"),
    "kv_transfer_params": (asks_for({}), "Leave it out"),
    "vllm_xargs": (asks_for({}), "Leave it out: there are no custom logits processors"),
}
"""Field -> (which values ask for nothing special, what to do instead)."""


def unsupported(name: str, fix: str, *, param: str | None = None) -> ApiError:
    """The 400 for a field that is known and not served; `param` is its name within its own object."""
    return ApiError(f"{name} is not supported", fix=fix, param=param or name, code="unsupported_parameter")


def refuse_unsupported(body: BaseModel, table: Mapping[str, tuple[Accepts, str]], prefix: str = "") -> None:
    """Raise for the first field in `table`, in its order, that `body` has and that asks for something."""
    given = body.model_fields_set
    if table.keys().isdisjoint(given):
        return
    for name in [name for name in table if name in given]:
        value = getattr(body, name)
        harmless, fix = table[name]
        if value is not None and not harmless(value):
            raise unsupported(prefix + name, fix, param=name)
