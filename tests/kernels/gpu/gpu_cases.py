"""Steps on the device under test, and what the interpreter needs to run them."""

import numpy as np
import torch
import triton.language as tl
from kernel_cases import Case, poisoned_cache, random_case
from numpy.typing import NDArray

from headrace.kernels.cache_dtype import FP8, FP8_LARGEST
from headrace.kernels.ops import HeadShape, LayerCache, StepBatch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EVERY_DTYPE = (torch.float32, torch.bfloat16, torch.float16)


def interpreter_knows_bfloat16() -> None:
    """Triton's interpreter keeps bfloat16 as 16 bits and would multiply those."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def create_dot(self: object, a: TensorHandle, b: TensorHandle, d: TensorHandle, *_: object) -> TensorHandle:
        return TensorHandle(np.matmul(_wide(a), _wide(b)) + d.data, d.dtype.scalar)

    def _wide(handle: TensorHandle) -> NDArray[np.float32]:
        if str(handle.dtype.scalar) == "bf16":
            return (handle.data.astype(np.uint32) << 16).view(np.float32)
        return handle.data.astype(np.float32)

    InterpreterBuilder.create_dot = create_dot


def interpreter_skips_assembly() -> None:
    """Of instructions that Triton has no word for, the kernels use only such as compute nothing."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    class Nothing:
        def get_result(self, _: int) -> TensorHandle:
            return TensorHandle(np.zeros(1, np.int32), tl.int32)

    InterpreterBuilder.create_inline_asm = lambda *_: Nothing()


def interpreter_rounds_to_fp8() -> None:
    """Triton's interpreter cuts small numbers off and carries into the exponent; what is out of range must be NaN."""
    from triton.runtime import interpreter

    convert = interpreter._convert_float

    def convert_float(
        values: NDArray[np.generic], source: tl.dtype, target: tl.dtype, rounding: object
    ) -> NDArray[np.generic]:
        if str(target) != "fp8e4nv" or str(source) != "fp32":
            return convert(values, source, target, rounding)
        wide = torch.from_numpy(values.view(np.float32).copy())
        narrow = torch.where(wide.abs() > FP8_LARGEST, torch.nan, wide).to(FP8)
        return narrow.view(torch.uint8).numpy()

    interpreter._convert_float = convert_float


def device_case(
    rows: list[tuple[int, int]], heads: HeadShape, dtype: torch.dtype, block_size: int = 16, seed: int | None = None
) -> Case:
    """`random_case` with fresh numbers, on the device under test."""
    seed = torch.seed() % (1 << 31) if seed is None else seed
    case = random_case(rows, heads, dtype, block_size, seed)
    return Case(case.q.to(DEVICE), cache_on_device(case.cache), batch_on_device(case.batch), case.tables)


def cache_on_device(cache: LayerCache) -> LayerCache:
    """A cache, moved."""
    return LayerCache(cache.k.to(DEVICE), cache.v.to(DEVICE))


def device_cache(num_blocks: int, heads: HeadShape, dtype: torch.dtype, block_size: int) -> LayerCache:
    """A cache of NaN."""
    return cache_on_device(poisoned_cache(num_blocks, heads, dtype, block_size))


def batch_on_device(batch: StepBatch) -> StepBatch:
    """A batch, moved; its plan is not."""
    tensors = (batch.positions, batch.slots, batch.query_start, batch.context_lens, batch.block_tables)
    return StepBatch(*(tensor.to(DEVICE) for tensor in tensors), batch.query_lens, batch.kv_lens)
