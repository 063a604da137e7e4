"""How much a program of attention works on at a time, by card, dtype and head size; measured on an H100."""

from dataclasses import dataclass

from headrace.kernels.gpu.device import GpuTraits


@dataclass(frozen=True, slots=True)
class PrefillTiles:
    """`queries` counts query heads of one key head: a token is as many as share that key head."""

    queries: int
    keys: int
    num_warps: int
    num_stages: int


def prefill_tiles(dim: int, element_bytes: int, queries: int, traits: GpuTraits) -> PrefillTiles:
    """The largest tiles whose operands fit registers and shared memory, or smaller ones where those fill the card.

    `queries` are tokens times query heads of the step.
    """
    if element_bytes > 2:
        return PrefillTiles(32, 16, 4, 1)
    if not traits.copies_asynchronously:
        return PrefillTiles(32, 32, 8, 1)
    if traits.shared_bytes < 160 << 10:
        return PrefillTiles(64, 64 if dim <= 64 else 32, 4, 2)
    if dim > 128:
        return PrefillTiles(64, 32, 4, 2)
    if not traits.multiplies_by_warpgroup:
        return PrefillTiles(64, 64, 4, 2)
    small = queries < 2 * 128 * traits.num_multiprocessors
    return PrefillTiles(64 if small else 128, 64, 4, 3)


@dataclass(frozen=True, slots=True)
class DecodeTiles:
    """`programs` is how many of them a multiprocessor is given."""

    keys: int
    num_warps: int
    num_stages: int
    programs: int


def decode_tiles(
    queries: int, dim: int, element_bytes: int, cached_bytes: int, latency_bound: bool, traits: GpuTraits
) -> DecodeTiles:
    """Many programs of one warp with small tiles read fastest; a few of four warps are done first."""
    if not traits.copies_asynchronously or element_bytes > 2:
        return DecodeTiles(16, 4, 1, 4)
    if latency_bound:
        return DecodeTiles(min(max(64 * 128 // dim, 16), 64), 4, 2, 4)
    warps = max(queries * dim // 2048, 1)
    keys = 16 if dim > 128 or cached_bytes == 1 else 32
    return DecodeTiles(keys, warps, 2, max(decode_programs(cached_bytes) // warps, 1))


def decode_programs(cached_bytes: int) -> int:
    """How many programs of one warp a multiprocessor is given, by the bytes of a cached value."""
    return 12 if cached_bytes == 1 else 6
