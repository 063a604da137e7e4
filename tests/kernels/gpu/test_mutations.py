"""The differential tests can fail: each mutation of a kernel's source is caught by the check that covers it."""

import importlib
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch
from checks import (
    check_add_rms_norm,
    check_attend,
    check_copy_blocks,
    check_linear_add,
    check_norm_linear,
    check_rope_and_cache,
    check_rope_and_fp8_cache,
    check_silu_and_mul,
)
from sampling_checks import DESCRIBED, PENALIZED, check_random_rows
from sampling_twin import Asked

from headrace.kernels.gpu.ops import TritonOps
from headrace.kernels.ops import HeadShape, Ops

DTYPE = torch.float16
HEADS = HeadShape(4, 2, 64)
Check = Callable[[Ops], None]
USERS = {
    "softmax": ("decode_attention", "prefill_attention"),
    "paged_tile": ("decode_attention", "prefill_attention"),
    "merge": ("decode_attention",),
    "sampling_noise": ("sampling_scores",),
    "sampling_truncation": ("sampling_choice",),
    "sampling_penalties": ("sampling_scores",),
    "sampling_logprobs": ("sampling_choice",),
}
"""Modules without a kernel of their own, and the kernels that call them."""
MUTATIONS: dict[str, tuple[str, str, str, Check]] = {
    "the norm divides by the padded width": (
        "rms_norm", "/ width + eps", "/ BLOCK + eps", lambda ops: check_add_rms_norm(ops, DTYPE, 3, 33),
    ),
    "the norm before a gemv divides by the padded width": (
        "gemv", "_sum(values * values) / IN", "_sum(values * values) / (CHUNKS * WIDTH)",
        lambda ops: check_norm_linear(ops, DTYPE, 2, 520, 20),
    ),
    "gate and up change places in a gemv": (
        "gemv", "result / (1.0 + tl.exp(-result)) * (_sum(ups * scaled)", "result * tl.sigmoid(_sum(ups * scaled)",
        lambda ops: check_norm_linear(ops, DTYPE, 1, 256, 64),
    ),
    "a gemv replaces the residual stream": (
        "gemv", "result += tl.load(target, row < OUT, other=0.0)", "result += 0.0",
        lambda ops: check_linear_add(ops, DTYPE, 1, 256, 64),
    ),
    "one warp's share of the inputs is left out": (
        "small_matmul", "tl.sum(acc, axis=0)", "tl.max(acc, axis=0)",
        lambda ops: check_linear_add(ops, DTYPE, 9, 4096, 80),
    ),
    "the last token is not written": (
        "small_matmul", "exists = (token < tokens)[None, :]", "exists = (token < tokens - 1)[None, :]",
        lambda ops: check_linear_add(ops, DTYPE, 9, 4096, 80),
    ),
    "every turn multiplies the first one's weights": (
        "held_matmul", "tl.trans(held[turn], 0, 2, 1)", "tl.trans(held[0], 0, 2, 1)",
        lambda ops: check_linear_add(ops, DTYPE, 9, 1024, 64),
    ),
    "gate twice, no up": (
        "held_matmul", "_held(place + OUT * IN, IN,", "_held(place, IN,",
        lambda ops: check_norm_linear(ops, DTYPE, 9, 512, 64),
    ),
    "silu's exponent has the wrong sign": (
        "silu_and_mul", "tl.exp(-gate)", "tl.exp(gate)", lambda ops: check_silu_and_mul(ops, DTYPE, 3, 17),
    ),
    "the second half turns the other way": (
        "rope_and_cache", "second * cos + first * sin", "second * cos - first * sin",
        lambda ops: check_rope_and_cache(ops, DTYPE, HEADS),
    ),
    "fp8 is bounded too low": (
        "rope_and_cache", "_FP8_LARGEST, propagate", "240.0, propagate",
        lambda ops: check_rope_and_fp8_cache(ops, DTYPE, HEADS, size=300.0),
    ),
    "values are normed like keys": (
        "rope_and_cache", "tl.where(is_value, first, first * inverse", "tl.where(is_query, first, first * inverse",
        lambda ops: check_rope_and_cache(ops, DTYPE, HEADS),
    ),
    "pairs of blocks are taken for contiguous": (
        "copy_blocks", "pair * source_stride", "pair", lambda ops: check_copy_blocks(ops, DTYPE, HEADS, 16),
    ),
    "the last key is left out": (
        "decode_plan", "tl.minimum(begin + size, context)", "tl.minimum(begin + size, context - 1)",
        lambda ops: check_attend(ops, DTYPE, [(1, 70)], HEADS),
    ),
    "the window is one token too long": (
        "decode_plan", "context - WINDOW, 0", "context - WINDOW - 1, 0",
        lambda ops: check_attend(ops, DTYPE, [(1, 70)], HEADS, 5),
    ),
    "chunks are merged by the wrong weight": (
        "merge", "total = tl.sum(tl.exp2(logs - largest[None, :]), axis=0)", "total = tl.sum(logs * 0 + 1, axis=0)",
        lambda ops: check_attend(ops, DTYPE, [(1, 400)], HEADS),
    ),
    "the counter of finished chunks stays": (
        "decode_attention", "tl.store(unit, 0)", "tl.store(unit, splits)",
        lambda ops: check_attend(ops, DTYPE, [(1, 400)], HEADS),
    ),
    "older tiles do not fade": (
        "softmax", "acc * fade[:, None]", "acc", lambda ops: check_attend(ops, DTYPE, [(1, 60), (90, 90)], HEADS),
    ),
    "a query sees the key after its own": (
        "prefill_attention", "key[None, :] <= position", "key[None, :] <= 1 + position",
        lambda ops: check_attend(ops, DTYPE, [(37, 70)], HEADS),
    ),
    "every tile takes the first tokens of its row": (
        "prefill_attention", "// tile_tokens) * tile_tokens", "// tile_tokens) * 0",
        lambda ops: check_attend(ops, DTYPE, [(40, 40), (41, 41), (9, 9)], HEADS),
    ),
    "offsets within a block are dropped": (
        "paged_tile", "token % BLOCK_SIZE", "token * 0", lambda ops: check_attend(ops, DTYPE, [(1, 60)], HEADS),
    ),
    "all seeds have the same noise": (
        "sampling_noise", "tl.load(row_params).to(tl.uint32, bitcast=True)", "tl.load(row_params).to(tl.uint32) * 0",
        lambda _: check_random_rows([Asked(seed=7), Asked(seed=8)], 700),
    ),
    "the last of equals is taken": (
        "sampling_scores", "tl.min(tl.where(best == largest, found, vocab_size - 1))",
        "tl.max(tl.where(best == largest, found, 0))", lambda _: check_random_rows([Asked(0.0)] * 3, 40, spread=0.0),
    ),
    "top_k keeps thirty times as many": (
        "sampling_truncation", "vocab_size, TILE, TILES) >= k", "vocab_size, TILE, TILES) >= 30 * k",
        lambda _: check_random_rows([Asked(50.0, 3, seed=seed) for seed in range(5)], 100),
    ),
    "top_p keeps a tenth as much": (
        "sampling_truncation", "limit = top_p", "limit = 0.1 * top_p",
        lambda _: check_random_rows([Asked(50.0, top_p=0.9, seed=seed) for seed in range(6)], 100),
    ),
    "the token does not go to its row": (
        "sampling_choice", "last_tokens + row", "last_tokens + row * 0",
        lambda _: check_random_rows([Asked(0.0)] * 3, 40),
    ),
    "the prompt's tokens are not penalized": (
        "sampling_penalties", "tl.where(seen != 0,", "tl.where(count != 0,",
        lambda _: check_random_rows([Asked(0.0, repetition=30.0)] * 30, 40),
    ),
    "the token is not counted": (
        "sampling_choice", "count_token(seen + token)", "pass", lambda _: check_random_rows(PENALIZED[:1], 40),
    ),
    "the rank counts the token itself": (
        "sampling_logprobs", "above = ordered(x) + 1", "above = ordered(x)",
        lambda _: check_random_rows(DESCRIBED, 300),
    ),
    "the likeliest token is told again": (
        "sampling_logprobs", "(value < last) |", "(value <= last) |", lambda _: check_random_rows(DESCRIBED, 300),
    ),
}  # fmt: skip
"""What goes wrong -> module, its text, the mutation, and the check that must fail."""


@pytest.mark.parametrize("name", MUTATIONS)
def test_is_caught(name: str, triton_ops: TritonOps, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module, old, new, check = MUTATIONS[name]
    mutant = load_mutant(module, old, new, tmp_path)
    for user in USERS.get(module, ()):
        # A kernel that was compiled already keeps the functions that it was compiled with.
        caller = load_mutant(user, f"headrace.kernels.gpu.{module} import", f"{mutant.__name__} import", tmp_path)
        use_kernel(user, caller, monkeypatch)
    if module not in USERS:
        use_kernel(module, mutant, monkeypatch)
    with pytest.raises(AssertionError):
        check(triton_ops)


def use_kernel(module: str, mutant: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Launch the mutant's kernel instead of the module's."""
    monkeypatch.setattr(f"headrace.kernels.gpu.{module}.{module}_kernel", getattr(mutant, f"{module}_kernel"))


def load_mutant(module: str, old: str, new: str, folder: Path) -> ModuleType:
    """A kernel's module with `old`, which it must contain, replaced by `new`."""
    source = Path(str(importlib.import_module(f"headrace.kernels.gpu.{module}").__file__)).read_text()
    assert old in source
    path = folder / f"mutant_{module}.py"
    path.write_text(source.replace(old, new))
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    mutant = module_from_spec(spec)
    sys.modules[path.stem] = mutant
    spec.loader.exec_module(mutant)
    return mutant


def test_the_checks_pass_without_a_mutation(triton_ops: TritonOps) -> None:
    for _, _, _, check in MUTATIONS.values():
        check(triton_ops)
