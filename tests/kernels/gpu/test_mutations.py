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
    check_rope_and_cache,
    check_silu_and_mul,
)

from headrace.kernels.gpu.ops import TritonOps
from headrace.kernels.ops import HeadShape, Ops

DTYPE = torch.float16
HEADS = HeadShape(4, 2, 64)
Check = Callable[[Ops], None]
USERS = {
    "softmax": ("decode_attention", "prefill_attention"),
    "paged_tile": ("decode_attention", "prefill_attention"),
    "merge": ("decode_attention",),
}
"""Modules without a kernel of their own, and the kernels that call them."""
MUTATIONS: dict[str, tuple[str, str, str, Check]] = {
    "the norm divides by the padded width": (
        "rms_norm", "/ width + eps", "/ BLOCK + eps", lambda ops: check_add_rms_norm(ops, DTYPE, 3, 33),
    ),
    "silu's exponent has the wrong sign": (
        "silu_and_mul", "tl.exp(-gate)", "tl.exp(gate)", lambda ops: check_silu_and_mul(ops, DTYPE, 3, 17),
    ),
    "the second half turns the other way": (
        "rope_and_cache", "second * cos + first * sin", "second * cos - first * sin",
        lambda ops: check_rope_and_cache(ops, DTYPE, HEADS),
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
