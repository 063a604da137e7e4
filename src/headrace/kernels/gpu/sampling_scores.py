"""The first pass of sampling: the best token of each chunk of the vocabulary, noise included."""

import triton
import triton.language as tl
from torch import Tensor

from headrace.kernels.gpu.launch import Arguments, Launch
from headrace.kernels.gpu.row_params import PARAM_FIELDS
from headrace.kernels.gpu.sampling_noise import LOG2_E, log_exponential, noise_keys
from headrace.kernels.gpu.sampling_penalties import penalized, penalizes
from headrace.kernels.gpu.sampling_row import DESCRIBED, SEED, TEMPERATURE, finite, load_float, truncates
from headrace.kernels.gpu.sampling_workspace import TILE_TOKENS, SampleWorkspace, chunk_tiles, num_chunks

_TILES = 16
"""Tiles at a time."""


@triton.jit(do_not_specialize=["rows", "positions", "row_params", "seen"])
def sampling_scores_kernel(
    logits: tl.tensor,
    rows: tl.tensor,
    positions: tl.tensor,
    row_params: tl.tensor,
    seen: tl.tensor,
    scores: tl.tensor,
    candidates: tl.tensor,
    maxima: tl.tensor,
    masses: tl.tensor,
    raw_maxima: tl.tensor,
    raw_masses: tl.tensor,
    vocab_size: tl.tensor,
    logits_stride: tl.tensor,
    maxima_stride: tl.tensor,
    FIELDS: tl.constexpr,
    TILE: tl.constexpr,
    TILES: tl.constexpr,
    CHUNK: tl.constexpr,
) -> None:
    """Program (c, i) handles chunk c of row i: its best token with its score, and its tiles if the row needs them.

    Those of the logits with penalties where it truncates, of the logits as they came where it is described. The score
    of a greedy row's token is its logit, of any other's logit / temperature + noise, in base 2.
    """
    chunk, index = tl.program_id(0), tl.program_id(1)
    row = tl.load(rows + index)
    if row >= 0:
        own = row_params + row * FIELDS
        truncated, temperature = truncates(own), load_float(own + TEMPERATURE)
        described, has_penalty = tl.load(own + DESCRIBED) >= 0, penalizes(own)
        scale = LOG2_E / tl.where(temperature > 0.0, temperature, 1.0)
        key, other_key = noise_keys(own + SEED, tl.load(positions + index))
        source = logits + index.to(tl.int64) * logits_stride
        seen += row.to(tl.int64) * vocab_size
        best = tl.full([TILES, TILE], float("-inf"), tl.float32)
        found = tl.zeros([TILES, TILE], tl.int32) + vocab_size - 1
        for start in range(chunk * CHUNK, (chunk + 1) * CHUNK, TILES):
            tile = start + tl.arange(0, TILES)
            token = tile[:, None] * TILE + tl.arange(0, TILE)[None, :]
            exists = token < vocab_size
            score = tl.load(source + token, exists, other=float("-inf")).to(tl.float32)
            place = index * maxima_stride + tile
            if described:
                _store_tiles(score, LOG2_E, raw_maxima + place, raw_masses + place)
            if has_penalty:
                score = penalized(score, tl.load(seen + token, exists, other=0), own)
            if truncated:
                _store_tiles(score, scale, maxima + place, masses + place)
            if temperature > 0.0:
                score = score * scale - log_exponential(token, key, other_key)
            found = tl.where(score > best, token, found)
            best = tl.where(score > best, score, best)
        largest = tl.max(best)
        result = index * tl.num_programs(0) + chunk
        tl.store(scores + result, largest)
        tl.store(candidates + result, tl.min(tl.where(best == largest, found, vocab_size - 1)))


@triton.jit
def _store_tiles(x: tl.tensor, scale: tl.tensor, maxima: tl.tensor, masses: tl.tensor) -> None:
    """Each tile's largest logit, and the sum of the probabilities relative to that one's."""
    top = finite(tl.max(x, axis=1))
    tl.store(maxima, top)
    tl.store(masses, tl.sum(tl.exp2((x - top[:, None]) * scale), axis=1))


def sampling_scores_launch(
    logits: Tensor, rows: Tensor, positions: Tensor, row_params: Tensor, seen: Tensor, workspace: SampleWorkspace
) -> Launch:
    """The first pass over logits [S, V], into `workspace`."""
    arguments: Arguments = {
        "logits": logits, "rows": rows, "positions": positions, "row_params": row_params, "seen": seen,
        "scores": workspace.scores, "candidates": workspace.candidates, "maxima": workspace.maxima,
        "masses": workspace.masses, "raw_maxima": workspace.raw_maxima, "raw_masses": workspace.raw_masses,
        "vocab_size": logits.shape[1], "logits_stride": logits.stride(0), "maxima_stride": workspace.num_tiles,
    }  # fmt: skip
    constants = {"FIELDS": PARAM_FIELDS, "TILE": TILE_TOKENS, "TILES": _TILES, "CHUNK": chunk_tiles(len(logits))}
    return Launch(sampling_scores_kernel, (num_chunks(*logits.shape), len(logits)), arguments, constants)
