"""A dense linear layer on a GPU: for few tokens a kernel of our own, which can take its neighbours in; else cuBLAS."""

import torch
import torch.nn.functional as F
from torch import Tensor

from headrace.kernels.gpu.device import GpuTraits
from headrace.kernels.gpu.gemv import gemv_launch
from headrace.kernels.gpu.held_matmul import held_matmul_launch
from headrace.kernels.gpu.linear_tiles import GemvTiles, HeldTiles, MatmulTiles, gemv_tiles, held_tiles, matmul_tiles
from headrace.kernels.gpu.small_matmul import small_matmul_launch
from headrace.kernels.torch_linear import bytes_of

Tiles = GemvTiles | HeldTiles | MatmulTiles


class GpuDense:
    """A weight [out, in] in its own dtype. Which way it takes depends on the number of tokens alone."""

    def __init__(self, weight: Tensor, bias: Tensor | None, traits: GpuTraits) -> None:
        self._weight, self._bias, self._traits = weight, bias, traits
        self._has_kernels = weight.dtype in (torch.bfloat16, torch.float16) and weight.is_contiguous()

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return bytes_of(self._weight, self._bias)

    def __call__(self, x: Tensor) -> Tensor:
        """`[T, in]` to `[T, out]`."""
        y = self.few(x, x.dtype)
        return F.linear(x, self._weight, self._bias) if y is None else y

    def few(
        self, x: Tensor, dtype: torch.dtype, *, norm: Tensor | None = None, eps: float = 0.0, gated: bool = False
    ) -> Tensor | None:
        """`[T, out]` (of gate and up, if `gated`: `[T, out / 2]`) in `dtype`, of `x` or its RMSNorm.

        None if no kernel does all that in one for so many tokens.
        """
        tokens, outputs = len(x), len(self._weight) // 2 if gated else len(self._weight)
        tiles = self._tiles(x, outputs, gated=gated, normed=norm is not None)
        if tiles is None:
            return None
        y = x.new_empty(tokens, outputs, dtype=dtype)
        self._launch(x, y, tiles, norm=norm, eps=eps, gated=gated)
        return y

    def add_few(self, x: Tensor, total: Tensor) -> bool:
        """`total += ` the product, in float32, if there is a kernel for so many tokens; False if not."""
        tiles = self._tiles(x, len(self._weight))
        if tiles is not None:
            self._launch(x, total, tiles, added=True)
        return tiles is not None

    def _tiles(self, x: Tensor, outputs: int, *, gated: bool = False, normed: bool = False) -> Tiles | None:
        """How to multiply so many tokens; None: as torch does."""
        tokens, inputs = x.shape
        if not self._has_kernels or not tokens or x.stride(1) != 1:
            return None
        gemv = gemv_tiles(tokens, inputs, outputs, gated)
        if gemv or normed:
            return gemv
        shape = (tokens, inputs, outputs, gated, self._traits)
        return held_tiles(*shape) or matmul_tiles(*shape)

    def _launch(
        self,
        x: Tensor,
        y: Tensor,
        tiles: Tiles,
        *,
        norm: Tensor | None = None,
        eps: float = 0.0,
        gated: bool = False,
        added: bool = False,
    ) -> None:
        weight, bias = self._weight, self._bias
        if isinstance(tiles, GemvTiles):
            launch = gemv_launch(x, weight, bias, y, tiles, norm=norm, eps=eps, gated=gated, added=added)
            launch.run_early(self._traits)
        elif isinstance(tiles, HeldTiles):
            held_matmul_launch(x, weight, bias, y, tiles, gated=gated, added=added).run_early(self._traits)
        else:
            small_matmul_launch(x, weight, bias, y, tiles, gated=gated, added=added).run()
