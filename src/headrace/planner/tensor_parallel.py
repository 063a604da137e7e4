"""Over how many GPUs a model can be divided: query heads evenly, key-value heads evenly or replicated evenly."""

from headrace.core.errors import HeadraceError
from headrace.planner.outline.mixers import Attention
from headrace.planner.outline.model import ModelOutline

_SIZES = range(1, 129)


def divides(outline: ModelOutline, size: int) -> bool:
    """Whether `size` GPUs can share the model."""
    return all(_divides_heads(heads, size) for heads in _heads(outline))


def check_tensor_parallel(outline: ModelOutline, size: int) -> None:
    """Raise `HeadraceError` unless `size` GPUs can share the model."""
    if divides(outline, size):
        return
    heads = " and ".join(f"{q} query and {kv} key-value heads" for q, kv in sorted(_heads(outline)))
    allowed = [str(each) for each in _SIZES if each <= 16 and divides(outline, each)]
    raise HeadraceError(
        f"tensor_parallel_size is {size}",
        rule=f"The model has {heads}: the size must divide the first, and divide the second or be a multiple of it",
        fix=f"Use one of {', '.join(allowed)}",
        param="tensor_parallel_size",
    )


def _heads(outline: ModelOutline) -> set[tuple[int, int]]:
    mixers = {layer.mixer for layer, _ in outline.kinds}
    return {(each.num_heads, each.num_kv_heads if isinstance(each, Attention) else each.num_heads) for each in mixers}


def _divides_heads(heads: tuple[int, int], size: int) -> bool:
    num_heads, num_kv_heads = heads
    return num_heads % size == 0 and (num_kv_heads % size == 0 or size % num_kv_heads == 0)
