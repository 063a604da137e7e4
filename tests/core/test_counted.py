"""Numbers of things in messages."""

import pytest

from headrace.core.counted import counted


@pytest.mark.parametrize(("count", "told"), [(0, "0 tokens"), (1, "1 token"), (2, "2 tokens")])
def test_one_is_singular_and_nothing_else(count, told):
    assert counted(count, "token") == told
