"""What a model can take: one check of a request against the model's limits, for Python and HTTP alike."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from headrace.core.counted import counted
from headrace.core.errors import HeadraceError
from headrace.core.sampling_params import SamplingParams


class ContextOverflow(HeadraceError):
    """The prompt, or the prompt and the tokens asked for, are more than the model's context holds."""


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """`max_model_len` tokens of prompt and answer together, ids below `vocab_size`, `max_logprobs` a position.

    `longest_context` is what the model reaches, None if that is not known. `names` says what the caller calls a
    field, where that differs from `SamplingParams` ("prompt" is the prompt).
    """

    max_model_len: int
    vocab_size: int
    max_logprobs: int = 20
    longest_context: int | None = None
    names: Mapping[str, str] = field(default_factory=dict)

    def check(self, prompt_token_ids: Sequence[int], params: SamplingParams) -> None:
        """Raise `HeadraceError` if the model cannot serve this prompt with these parameters."""
        self.check_prompt(prompt_token_ids)
        self.check_params(len(prompt_token_ids), params)

    def check_params(self, num_prompt_tokens: int, params: SamplingParams) -> None:
        """Raise `HeadraceError` if the model cannot serve these parameters after a prompt of so many tokens."""
        self._check_length(num_prompt_tokens, params.max_tokens)
        for name in ("stop_token_ids", "allowed_token_ids", "logit_bias"):
            if token_ids := getattr(params, name):
                self.check_token_ids(name, token_ids)
        for name in ("logprobs", "prompt_logprobs"):
            if (count := getattr(params, name)) is not None:
                self._check_logprobs(name, count)

    def check_prompt(self, token_ids: Sequence[int]) -> None:
        """Raise unless the prompt has tokens, all in the vocabulary, and leaves room for an answer."""
        name = self._name("prompt")
        if not token_ids:
            raise HeadraceError(
                "The prompt is empty", rule="A prompt has at least one token", fix="Pass some text", param=name
            )
        if len(token_ids) >= self.max_model_len:
            raise ContextOverflow(
                f"The prompt has {counted(len(token_ids), 'token')}",
                rule=f"The model's context holds {self.max_model_len} tokens, prompt and answer together",
                fix=f"Shorten the prompt to {counted(self.max_model_len - 1, 'token')} or fewer{self._or_more()}",
                param=name,
            )
        self.check_token_ids("prompt", token_ids)

    def check_token_ids(self, name: str, token_ids: Collection[int]) -> None:
        """Raise unless all ids are in the vocabulary."""
        if _all_ints(token_ids) and 0 <= min(token_ids, default=0) <= max(token_ids, default=0) < self.vocab_size:
            return
        for token_id in token_ids:
            if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id < self.vocab_size:
                raise HeadraceError(
                    f"{self._name(name)} has the token id {token_id!r}",
                    rule=f"Token ids of this model are integers from 0 to {self.vocab_size - 1}",
                    param=self._name(name),
                )

    def _check_length(self, num_prompt: int, max_tokens: int | None) -> None:
        name, room = self._name("max_tokens"), self.max_model_len - num_prompt
        if max_tokens is not None and max_tokens > room:
            raise ContextOverflow(
                f"{name} is {max_tokens} and the prompt has {counted(num_prompt, 'token')}",
                rule=f"The model's context holds {self.max_model_len} tokens, prompt and answer together",
                fix=f"Use {name}={room} or fewer, or none to use what the context has left",
                param=name,
            )

    def _check_logprobs(self, field_name: str, value: int) -> None:
        name = self._name(field_name)
        if value > self.vocab_size:
            rule = f"The vocabulary has {self.vocab_size} tokens"
            raise HeadraceError(f"{name} is {value}", rule=rule, fix="Use -1 for all of them", param=name)
        wanted = self.vocab_size if value == -1 else value
        if wanted > self.max_logprobs and self.max_logprobs != -1:
            raise HeadraceError(
                f"{name} is {value}",
                rule=f"At most {self.max_logprobs} log probabilities are given a position",
                fix=f"Ask for fewer, or start with --max-logprobs {value}",
                param=name,
            )

    def _or_more(self) -> str:
        """The other way out of a context that is too short, where the model reaches further."""
        grows = self.longest_context is None or self.max_model_len < self.longest_context
        return ", or raise --max-model-len" if grows else ""

    def _name(self, field_name: str) -> str:
        return self.names.get(field_name, field_name)


def _all_ints(values: Collection[int]) -> bool:
    """Whether each is an int and no bool. A long prompt is checked on the engine's thread: no Python loop."""
    return set(map(type, values)) <= {int}
