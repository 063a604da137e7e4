"""Token counts of one exchange, as OpenAI reports them."""

from headrace.core.outputs import RequestOutput


class Usage:
    """Counts over all prompts and choices of an exchange; each prompt is counted once, however many choices it has.

    `told_tokens` of the answer were told before, elsewhere.
    """

    def __init__(self, prompt_tokens: int, told_tokens: int = 0) -> None:
        self._prompt_tokens = prompt_tokens
        self.completion_tokens = told_tokens
        self._cached: dict[int, int] = {}

    def count(self, position: int, output: RequestOutput) -> None:
        """Count what `output`, of the prompt at `position`, adds."""
        for choice in output.outputs:
            self.completion_tokens += len(choice.token_ids)
        if output.num_cached_tokens:
            self._cached[position] = output.num_cached_tokens

    def fields(self) -> dict[str, object]:
        """OpenAI's `usage`."""
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self._prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": sum(self._cached.values())},
        }
