"""Flags in errors are keyword arguments for those who write Python."""

import pytest

from headrace.core.argument_words import as_arguments, told_in_python
from headrace.core.errors import HeadraceError


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ("Use --max-model-len 8192", "Use max_model_len=8192"),
        ("Use --quantization int8 --max-model-len 100", "Use quantization='int8', max_model_len=100"),
        ("a larger --kv-cache-memory-bytes makes room", "a larger kv_cache_memory_bytes makes room"),
        ("Leave --enforce-eager out", "Leave enforce_eager=True out"),
        ("quantization='int8' (--quantization int8)", "quantization='int8' (--quantization int8)"),
        ("or raise --max-model-len", "or raise max_model_len"),
        ("See --max-model-length and --help", "See --max-model-length and --help"),
    ],
)
def test_flags_become_arguments(flags: str, arguments: str) -> None:
    assert as_arguments(HeadraceError(flags)).what == arguments


def test_the_rest_of_an_error_stays() -> None:
    with pytest.raises(HeadraceError) as caught, told_in_python():
        raise HeadraceError("It is too long", rule="It reaches 5", fix="Use --max-model-len 5", param="max_model_len")
    assert (caught.value.rule, caught.value.fix) == ("It reaches 5", "Use max_model_len=5")
    assert caught.value.param == "max_model_len"
