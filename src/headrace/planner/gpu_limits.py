"""What a GPU cannot do of what was asked, in the engine's words: it would refuse to start there."""

from headrace.core.errors import HeadraceError
from headrace.planner.gpus import Gpu
from headrace.planner.serving import Serving


def refusal_of(serving: Serving, gpu: Gpu) -> HeadraceError | None:
    """Why a GPU does not serve so, whatever its memory; None if it does."""
    if serving.dtype_is_asked and serving.dtype == "bfloat16" and not gpu.has_bfloat16:
        return HeadraceError(
            f"dtype is bfloat16, which {gpu.name} cannot compute with",
            rule="bfloat16 needs a GPU of compute capability 8.0 or more",
            fix="Use dtype='float16', or 'auto'",
            param="dtype",
        )
    if serving.kv_cache_dtype.startswith("fp8") and not gpu.has_fp8:
        return HeadraceError(
            f"kv_cache_dtype is {serving.kv_cache_dtype}, which {gpu.name} cannot compute with",
            rule=f"fp8 needs a GPU of compute capability 8.9 or more (L4, RTX 40, H100); it has {gpu.capability}",
            fix="Leave kv_cache_dtype out",
            param="kv_cache_dtype",
        )
    return None
