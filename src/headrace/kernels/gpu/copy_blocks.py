"""Copies of whole cache blocks, keys and values in one launch."""

import triton
import triton.language as tl
from torch import Tensor

from headrace.kernels.gpu.launch import Arguments, Launch
from headrace.kernels.ops import LayerCache

_BLOCK = 2048


@triton.jit
def copy_blocks_kernel(
    k: tl.tensor,
    v: tl.tensor,
    source: tl.tensor,
    target: tl.tensor,
    source_stride: tl.tensor,
    target_stride: tl.tensor,
    block_elements: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """One part of one pair of blocks a program."""
    pair = tl.program_id(0)
    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = element < block_elements
    read = tl.load(source + pair * source_stride) * block_elements + element
    write = tl.load(target + pair * target_stride) * block_elements + element
    tl.store(k + write, tl.load(k + read, inside), inside)
    tl.store(v + write, tl.load(v + read, inside), inside)


def copy_blocks_launch(cache: LayerCache, source: Tensor, target: Tensor) -> Launch:
    """`Ops.copy_blocks`; no block may be both a source and a target."""
    elements = cache.k[0].numel()
    arguments: Arguments = {
        "k": cache.k, "v": cache.v, "source": source, "target": target, "source_stride": source.stride(0),
        "target_stride": target.stride(0), "block_elements": elements,
    }  # fmt: skip
    return Launch(copy_blocks_kernel, (len(source), triton.cdiv(elements, _BLOCK)), arguments, {"BLOCK": _BLOCK})
