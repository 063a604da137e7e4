"""The memory that sampling's two passes share and fill, allocated once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from headrace.kernels.gpu.row_params import MOST_DESCRIBED

TILE_TOKENS = 128
"""Tokens whose maximum is kept, so that a tile can be passed over that holds nothing of interest."""
_SMALL_CHUNK_TILES, _LARGE_CHUNK_TILES = 16, 64
MANY_ROWS = 32
"""From so many rows on, large chunks fill the card."""

COUNTED, IN_PROMPT = 0x7FFF, -0x8000
"""What an int16 says of a row and a token: how often it was put out, and whether the prompt has it."""

DESCRIPTION_FIELDS = 3 + 2 * MOST_DESCRIBED
"""A token, its log probability and its rank; the most likely tokens, and their log probabilities. Floats as bits."""


@dataclass(frozen=True, slots=True)
class SampleWorkspace:
    """For steps of at most S rows of one vocabulary; one step at a time may use it.

    `scores` fp32 and `candidates` int32 [S * most_chunks]: by chunk of the vocabulary its best token. `maxima` and
    `masses` fp32 [S * num_tiles]: by tile its largest logit, and the sum of the probabilities relative to that one's.
    `tiles` int32, the same size: a list of those that matter. `raw_maxima` and `raw_masses`, the same size, are those
    of the logits as they came, at temperature 1; `descriptions` int32 [S, DESCRIPTION_FIELDS] is what is told of the
    tokens. Only rows that are described write these three.
    """

    most_chunks: int
    num_tiles: int
    scores: Tensor
    candidates: Tensor
    maxima: Tensor
    masses: Tensor
    tiles: Tensor
    raw_maxima: Tensor
    raw_masses: Tensor
    descriptions: Tensor


def empty_workspace(num_rows: int, vocab_size: int, device: torch.device) -> SampleWorkspace:
    """A workspace for steps of up to `num_rows` rows."""
    num_tiles = -(-vocab_size // (TILE_TOKENS * _LARGE_CHUNK_TILES)) * _LARGE_CHUNK_TILES
    most_chunks = num_tiles // _SMALL_CHUNK_TILES
    by_chunk, by_tile = (torch.empty(num_rows * n, device=device) for n in (most_chunks, num_tiles))
    candidates, tiles = (torch.empty_like(like, dtype=torch.int32) for like in (by_chunk, by_tile))
    masses, raw_maxima, raw_masses = (torch.empty_like(by_tile) for _ in range(3))
    descriptions = torch.empty(num_rows, DESCRIPTION_FIELDS, dtype=torch.int32, device=device)
    return SampleWorkspace(
        most_chunks, num_tiles, by_chunk, candidates, by_tile, masses, tiles, raw_maxima, raw_masses, descriptions
    )


def chunk_tiles(num_rows: int) -> int:
    """Tiles that one program of the first pass handles: few where few rows have to fill the card.

    A row's token does not depend on it.
    """
    return _LARGE_CHUNK_TILES if num_rows >= MANY_ROWS else _SMALL_CHUNK_TILES


def num_chunks(num_rows: int, vocab_size: int) -> int:
    """Programs of the first pass for each row of a step."""
    return -(-vocab_size // (TILE_TOKENS * chunk_tiles(num_rows)))
