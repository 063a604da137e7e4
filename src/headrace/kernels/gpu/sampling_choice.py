"""The second pass of sampling: a program a row takes the best of the chunks, or searches what truncation leaves.

It counts the token where there is a penalty, and describes it where that is asked for.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from headrace.kernels.gpu.launch import Arguments, Launch
from headrace.kernels.gpu.row_params import PARAM_FIELDS
from headrace.kernels.gpu.sampling_logprobs import describe
from headrace.kernels.gpu.sampling_penalties import count_token, penalizes
from headrace.kernels.gpu.sampling_row import DESCRIBED, truncates
from headrace.kernels.gpu.sampling_truncation import draw_truncated
from headrace.kernels.gpu.sampling_workspace import DESCRIPTION_FIELDS, TILE_TOKENS, SampleWorkspace, num_chunks

_TILES = 16
_WARPS = 8
_DROPPED_BITS = {torch.bfloat16: 16, torch.float16: 13, torch.float32: 0}


@triton.jit(do_not_specialize=["rows", "positions", "row_params", "seen", "tokens", "last_tokens", "num_chunks"])
def sampling_choice_kernel(
    logits: tl.tensor,
    rows: tl.tensor,
    positions: tl.tensor,
    row_params: tl.tensor,
    seen: tl.tensor,
    scores: tl.tensor,
    candidates: tl.tensor,
    maxima: tl.tensor,
    masses: tl.tensor,
    tiles: tl.tensor,
    raw_maxima: tl.tensor,
    raw_masses: tl.tensor,
    descriptions: tl.tensor,
    tokens: tl.tensor,
    last_tokens: tl.tensor,
    vocab_size: tl.tensor,
    logits_stride: tl.tensor,
    maxima_stride: tl.tensor,
    num_chunks: tl.tensor,
    FIELDS: tl.constexpr,
    MOST_CHUNKS: tl.constexpr,
    MOST_TILES: tl.constexpr,
    TILE: tl.constexpr,
    TILES: tl.constexpr,
    DROPPED_BITS: tl.constexpr,
    DESCRIPTION: tl.constexpr,
) -> None:
    """One row a program; its token goes to `tokens` and to its row of `last_tokens`."""
    index = tl.program_id(0)
    row = tl.load(rows + index)
    if row >= 0:
        chunk = tl.arange(0, MOST_CHUNKS)
        exists = chunk < num_chunks
        score = tl.load(scores + index * num_chunks + chunk, exists, other=float("-inf"))
        candidate = tl.load(candidates + index * num_chunks + chunk, exists, other=vocab_size - 1)
        token = tl.min(tl.where(score == tl.max(score), candidate, vocab_size - 1))
        own = row_params + row * FIELDS
        has_penalty = penalizes(own)
        seen += row.to(tl.int64) * vocab_size
        source = (logits + index.to(tl.int64) * logits_stride, seen, own, has_penalty)
        first_tile = index * maxima_stride
        if truncates(own):
            token = draw_truncated(
                source, tl.load(positions + index), token, maxima + first_tile,
                masses + first_tile, tiles + first_tile, vocab_size, MOST_TILES, TILE, TILES, DROPPED_BITS,
            )  # fmt: skip
        if has_penalty:
            count_token(seen + token)
        most = tl.load(own + DESCRIBED)
        if most >= 0:
            describe(
                descriptions + index * DESCRIPTION, token, most, source, raw_maxima + first_tile,
                raw_masses + first_tile, tiles + first_tile, vocab_size, MOST_TILES, TILE, TILES,
            )  # fmt: skip
        tl.store(tokens + index, token)
        tl.store(last_tokens + row, token)


def sampling_choice_launch(
    logits: Tensor,
    rows: Tensor,
    positions: Tensor,
    row_params: Tensor,
    seen: Tensor,
    tokens: Tensor,
    last_tokens: Tensor,
    workspace: SampleWorkspace,
) -> Launch:
    """The second pass over logits [S, V], after the first has filled `workspace`."""
    arguments: Arguments = {
        "logits": logits, "rows": rows, "positions": positions, "row_params": row_params, "seen": seen,
        "scores": workspace.scores, "candidates": workspace.candidates, "maxima": workspace.maxima,
        "masses": workspace.masses, "tiles": workspace.tiles, "raw_maxima": workspace.raw_maxima,
        "raw_masses": workspace.raw_masses, "descriptions": workspace.descriptions, "tokens": tokens,
        "last_tokens": last_tokens, "vocab_size": logits.shape[1], "logits_stride": logits.stride(0),
        "maxima_stride": workspace.num_tiles, "num_chunks": num_chunks(*logits.shape),
    }  # fmt: skip
    constants = {
        "FIELDS": PARAM_FIELDS, "MOST_CHUNKS": triton.next_power_of_2(workspace.most_chunks),
        "MOST_TILES": triton.next_power_of_2(workspace.num_tiles), "TILE": TILE_TOKENS, "TILES": _TILES,
        "DROPPED_BITS": _DROPPED_BITS[logits.dtype], "DESCRIPTION": DESCRIPTION_FIELDS,
    }  # fmt: skip
    return Launch(sampling_choice_kernel, (len(logits),), arguments, constants, _WARPS)
