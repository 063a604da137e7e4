"""Which way a linear layer takes for how many tokens, and how much a program of it works on; measured on an H100."""

from dataclasses import dataclass

from headrace.kernels.gpu.device import GpuTraits

_MOST_GEMV_TOKENS = 2
"""More are bound by arithmetic: at 4 tokens the 8B shape takes 1.7 times as long as with cuBLAS."""
_MOST_MATMUL_TOKENS = 16
_MOST_HELD_TOKENS = 16
_HELD_ROWS = 16
_LEAST_HELD_SPLITS, _MOST_HELD_SPLITS = 4, 16
_MOST_HELD_ELEMENTS = 256
"""Of the weight that a thread holds, two in each of 128 registers."""
_HELD_OF_MULTIPROCESSOR = 1 << 16
"""Elements: half of its registers."""
_DEPTHS, _GATED_DEPTHS = (128, 64, 32), (64, 32)
_TOKEN_ROWS = 2
_MOST_ELEMENTS = 128
"""Of the weight that a thread holds in registers, two in each."""
_WARP_ELEMENTS = 256
"""That a warp loads at once: 16 bytes a thread."""


@dataclass(frozen=True, slots=True)
class GemvTiles:
    """`rows` of the weight (or of gate and up each) a program, of which its warps take `width` inputs at a time."""

    rows: int
    width: int
    num_warps: int


@dataclass(frozen=True, slots=True)
class HeldTiles:
    """`rows` of the weight (or of gate and up each) a program; each of `splits` warps has `depth` at a time."""

    rows: int
    splits: int
    depth: int


@dataclass(frozen=True, slots=True)
class MatmulTiles:
    """`rows` of the weight a program, of which each of `splits` warps multiplies `depth` inputs at a time."""

    rows: int
    splits: int
    depth: int
    num_stages: int


def gemv_tiles(tokens: int, inputs: int, outputs: int, gated: bool) -> GemvTiles | None:
    """So few rows that several programs a multiprocessor load at once; None for too many tokens or inputs."""
    if tokens > _MOST_GEMV_TOKENS or inputs % 8:
        return None
    warps = 2 if inputs <= 1024 else 4 if inputs <= 4096 else 8
    width = _WARP_ELEMENTS * warps
    held = _power_up(-(-inputs // width)) * width * (2 if gated else 1)
    fitting = _MOST_ELEMENTS * 32 * warps // held
    return GemvTiles(_power_down(min(_TOKEN_ROWS * tokens, fitting, outputs)), width, warps) if fitting else None


def held_tiles(tokens: int, inputs: int, outputs: int, gated: bool, traits: GpuTraits) -> HeldTiles | None:
    """None for too many tokens, a layer that the card's registers do not hold, or a shape that does not divide."""
    rows, held = _HELD_ROWS, inputs * (2 if gated else 1)
    splits = max(_LEAST_HELD_SPLITS, _power_up(-(-rows * held // (_MOST_HELD_ELEMENTS * 32))))
    depths = [depth for depth in (_GATED_DEPTHS if gated else _DEPTHS) if inputs % (splits * depth) == 0]
    fits = outputs * held <= traits.num_multiprocessors * _HELD_OF_MULTIPROCESSOR and splits <= _MOST_HELD_SPLITS
    if tokens > _MOST_HELD_TOKENS or outputs % rows or not (fits and depths and traits.copies_asynchronously):
        return None
    return HeldTiles(rows, splits, depths[0])


def matmul_tiles(tokens: int, inputs: int, outputs: int, gated: bool, traits: GpuTraits) -> MatmulTiles | None:
    """None for too many tokens, for a shape that does not divide, and where there are no matrix instructions."""
    tiles = MatmulTiles(16, 4, 64 if gated or inputs % 512 else 128, 3)
    divides = outputs % tiles.rows == 0 and inputs % (tiles.splits * tiles.depth) == 0
    return tiles if tokens <= _MOST_MATMUL_TOKENS and divides and traits.copies_asynchronously else None


def _power_down(number: int) -> int:
    return 1 << max(number, 1).bit_length() - 1


def _power_up(number: int) -> int:
    return 1 << (number - 1).bit_length()
