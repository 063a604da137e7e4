"""What a model can take: one check of a request against the model's limits, for Python and HTTP alike."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace.core.errors import HeadraceError
from headrace.core.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """`max_model_len` tokens of prompt and answer together, ids below `vocab_size`, `max_logprobs` a position."""

    max_model_len: int
    vocab_size: int
    max_logprobs: int = 20

    def check(self, prompt_token_ids: Sequence[int], params: SamplingParams) -> None:
        """Raise `HeadraceError` if the model cannot serve this prompt with these parameters."""
        self._check_prompt(prompt_token_ids)
        self._check_length(len(prompt_token_ids), params.max_tokens)
        for name in ("stop_token_ids", "allowed_token_ids", "logit_bias"):
            self._check_ids(name, getattr(params, name) or ())
        for name in ("logprobs", "prompt_logprobs"):
            self._check_logprobs(name, getattr(params, name))

    def _check_prompt(self, ids: Sequence[int]) -> None:
        if not ids:
            raise HeadraceError(
                "The prompt is empty", rule="A prompt has at least one token", fix="Pass some text", param="prompt"
            )
        self._check_ids("prompt", ids)

    def _check_length(self, num_prompt: int, max_tokens: int | None) -> None:
        room = self.max_model_len - num_prompt
        if room < 1:
            raise HeadraceError(
                f"The prompt has {num_prompt} tokens",
                rule=f"The model's context holds {self.max_model_len} tokens, prompt and answer together",
                fix=f"Shorten the prompt to {self.max_model_len - 1} tokens or fewer, or raise --max-model-len",
                param="prompt",
            )
        if max_tokens is not None and max_tokens > room:
            raise HeadraceError(
                f"max_tokens is {max_tokens} and the prompt has {num_prompt} tokens",
                rule=f"The model's context holds {self.max_model_len} tokens, prompt and answer together",
                fix=f"Use max_tokens={room} or fewer, or leave it to the context (max_tokens=None)",
                param="max_tokens",
            )

    def _check_ids(self, name: str, ids: Iterable[object]) -> None:
        for token_id in ids:
            if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id < self.vocab_size:
                raise HeadraceError(
                    f"{name} has the token id {token_id!r}",
                    rule=f"Token ids of this model are integers from 0 to {self.vocab_size - 1}",
                    param=name,
                )

    def _check_logprobs(self, name: str, value: int | None) -> None:
        wanted = self.vocab_size if value == -1 else value or 0
        if wanted > self.max_logprobs and self.max_logprobs != -1:
            raise HeadraceError(
                f"{name} is {value}",
                rule=f"At most {self.max_logprobs} log probabilities are given a position",
                fix=f"Ask for fewer, or start with --max-logprobs {value}",
                param=name,
            )
