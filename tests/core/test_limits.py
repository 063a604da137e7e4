"""A prompt that is too long is told what helps, and nothing that does not."""

import pytest

from headrace.core.limits import ContextOverflow, ModelLimits


@pytest.mark.parametrize(
    ("longest", "fix"),
    [
        (None, "Shorten the prompt to 99 tokens or fewer, or raise --max-model-len"),
        (200, "Shorten the prompt to 99 tokens or fewer, or raise --max-model-len"),
        (100, "Shorten the prompt to 99 tokens or fewer"),
    ],
)
def test_a_longer_context_is_offered_where_the_model_reaches_it(longest: int | None, fix: str) -> None:
    with pytest.raises(ContextOverflow) as caught:
        ModelLimits(100, 10, longest_context=longest).check_prompt([1] * 100)
    assert caught.value.fix == fix
