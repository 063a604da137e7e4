"""Compile every kernel for every kind of card, without one, and print what the machine code looks like, as JSON.

A program of its own, because a process interprets kernels or compiles them.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from headrace.kernels.cache_dtype import FP8
from headrace.kernels.gpu.copy_blocks import copy_blocks_launch
from headrace.kernels.gpu.decode_attention import decode_attention_launch
from headrace.kernels.gpu.decode_plan import chunk_rule, decode_plan_launch, empty_decode_work
from headrace.kernels.gpu.device import GpuTraits
from headrace.kernels.gpu.exchange import hand_out_launch, receive_launch
from headrace.kernels.gpu.gemv import gemv_launch
from headrace.kernels.gpu.held_matmul import held_matmul_launch
from headrace.kernels.gpu.launch import Argument, Launch
from headrace.kernels.gpu.linear_tiles import gemv_tiles, held_tiles, matmul_tiles
from headrace.kernels.gpu.prefill_attention import prefill_attention_launch
from headrace.kernels.gpu.prepare_step import StepRows, StepTensors, lay_out_step_launch
from headrace.kernels.gpu.rms_norm import rms_norm_launch
from headrace.kernels.gpu.rope_and_cache import rope_and_cache_launch
from headrace.kernels.gpu.row_params import PARAM_FIELDS
from headrace.kernels.gpu.sampling import sample_launches
from headrace.kernels.gpu.sampling_workspace import MANY_ROWS, empty_workspace
from headrace.kernels.gpu.silu_and_mul import silu_and_mul_launch
from headrace.kernels.gpu.small_matmul import small_matmul_launch
from headrace.kernels.ops import HeadShape, LayerCache, StepBatch

GEMV_SHAPES = ((1024, 4096, False), (1024, 3072, True), (3072, 1024, False))
"""Inputs, outputs, and whether of gate and up."""
CAPABILITIES = (75, 80, 86, 89, 90)
HEADS = HeadShape(16, 8, 128)
META = torch.device("meta")
POINTERS = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    FP8: "*fp8e4nv",
    torch.int16: "*i16",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
INSTRUCTIONS = {
    "bf16": r"\.bf16|bf16x2",
    "cp.async": r"cp\.async",
    "mma": r"\bmma\.sync",
    "wgmma": r"\bwgmma\.",
    "early": "griddepcontrol",
}


def main() -> None:
    """Compile everything for every card, two at a time."""
    jobs = [(capability, name, launch) for capability in CAPABILITIES for name, launch in launches(capability)]
    found: dict[int, dict[str, object]] = {capability: {} for capability in CAPABILITIES}
    with ThreadPoolExecutor(2) as pool:
        reports = pool.map(lambda job: report(job[2], job[0]), jobs)
        for (capability, name, _), result in zip(jobs, reports, strict=True):
            found[capability][name] = result
    print(json.dumps(found))


def launches(capability: int) -> Iterator[tuple[str, Launch]]:
    """Each kernel as Qwen3-0.6B launches it, in the widest 16-bit type of the card."""
    dtype = torch.bfloat16 if capability >= 80 else torch.float16
    traits = GpuTraits((capability // 10, capability % 10), 100)
    x, wide, residual = empty(64, 1024, dtype=dtype), empty(64, 6144, dtype=dtype), empty(64, 1024)
    qkv, q = empty(64, 4096, dtype=dtype), empty(64, 16, 128, dtype=dtype)
    cache = LayerCache(*(empty(512, 8, 16, 128, dtype=dtype) for _ in range(2)))
    norm, batch, cos_sin = empty(128, dtype=dtype), step_batch(64), empty(4096, 128)
    yield from step_launches()
    yield "rms_norm", rms_norm_launch(x, residual, empty(1024, dtype=dtype), x, 1e-6)
    yield "silu_and_mul", silu_and_mul_launch(wide, wide[:, :3072])
    yield "rope_and_cache", rope_and_cache_launch(qkv, q, HEADS, cos_sin, batch, cache, (norm, norm), 1e-6)
    yield "copy_blocks", copy_blocks_launch(cache, batch.slots, batch.slots)
    for rows, name in ((64, "decode_attention"), (2, "decode_attention of few rows")):
        rule = chunk_rule(rows, HEADS.num_kv_heads, None, traits)
        work = empty_decode_work(rule, rows, 999, (8, 2, 128), META)
        yield name, decode_attention_launch(q, x, cache, step_batch(rows), work, 0.1, traits)
    yield "decode_plan", decode_plan_launch(rule, batch, work.items, work.num_items)
    many, big = empty(8192, 16, 128, dtype=dtype), empty(8192, 2048, dtype=dtype)
    yield "prefill_attention", prefill_attention_launch(many, big, cache, batch, 0.1, None, traits)
    yield from linear_launches(dtype, traits)
    yield from sampling_launches(dtype)
    if capability >= 89:
        yield from fp8_launches(traits)


def linear_launches(dtype: torch.dtype, traits: GpuTraits) -> Iterator[tuple[str, Launch]]:
    """Linear layers of few tokens: QKV, gate and up, and down, with what stands around them."""
    norm, weights = empty(1024, dtype=dtype), {n: empty(n, 1024, dtype=dtype) for n in (4096, 6144)}
    down, wide = empty(1024, 3072, dtype=dtype), empty(32, 3072, dtype=dtype)
    for tokens in (1, 2):
        x, qkv, inner = empty(tokens, 1024), empty(tokens, 4096, dtype=dtype), wide[:tokens]
        tiles = [gemv_tiles(tokens, *shape) for shape in GEMV_SHAPES]
        yield f"gemv, {tokens}: qkv", gemv_launch(x, weights[4096], None, qkv, tiles[0], norm=norm, eps=1e-6)
        gated = gemv_launch(x, weights[6144], None, inner, tiles[1], norm=norm, eps=1e-6, gated=True)
        yield f"gemv, {tokens}: gate and up", gated
        yield f"gemv, {tokens}: down", gemv_launch(inner, down, None, x, tiles[2], added=True)
    if traits.copies_asynchronously:
        x, y, inner = empty(16, 1024, dtype=dtype), empty(16, 1024), wide[:16]
        held, held_added = held_tiles(16, 1024, 3072, True, traits), held_tiles(16, 3072, 1024, False, traits)
        yield "held_matmul: gate and up", held_matmul_launch(x, weights[6144], None, inner, held, gated=True)
        yield "held_matmul: down", held_matmul_launch(inner, down, None, y, held_added, added=True)
        gated, added = matmul_tiles(16, 1024, 3072, True, traits), matmul_tiles(16, 3072, 1024, False, traits)
        yield "small_matmul: gate and up", small_matmul_launch(x, weights[6144], None, inner, gated, gated=True)
        yield "small_matmul: down", small_matmul_launch(inner, down, None, y, added, added=True)


def sampling_launches(dtype: torch.dtype) -> Iterator[tuple[str, Launch]]:
    """Sampling from logits as the model makes them, and from edited ones; of few rows and of many."""
    vocab_size, params = 151_936, empty(512, PARAM_FIELDS, dtype=torch.int32)
    workspace, seen = empty_workspace(256, vocab_size, META), empty(512, vocab_size, dtype=torch.int16)
    for rows, kind, name in ((1, dtype, "1"), (256, dtype, "256"), (8, torch.float32, "edited")):
        column = empty(rows, dtype=torch.int32)
        logits = empty(rows, vocab_size, dtype=kind)
        first, second = sample_launches(logits, column, column, params, seen, column, params[:, 0], workspace)
        yield f"sampling_scores, {name}", first
        if rows < MANY_ROWS:
            yield f"sampling_choice, {name}", second


def fp8_launches(traits: GpuTraits) -> Iterator[tuple[str, Launch]]:
    """The kernels that touch the cache, over one in fp8."""
    dtype, batch, norm = torch.bfloat16, step_batch(64), empty(128, dtype=torch.bfloat16)
    cache = LayerCache(*(empty(512, 8, 16, 128, dtype=FP8) for _ in range(2)))
    qkv, q, out = empty(64, 4096, dtype=dtype), empty(64, 16, 128, dtype=dtype), empty(64, 2048, dtype=dtype)
    rope = rope_and_cache_launch(qkv, q, HEADS, empty(4096, 128), batch, cache, (norm, norm), 1e-6)
    yield "rope_and_cache, fp8", rope
    yield "copy_blocks, fp8", copy_blocks_launch(cache, batch.slots, batch.slots)
    for rows, name in ((64, "decode_attention, fp8"), (2, "decode_attention of few rows, fp8")):
        work = empty_decode_work(chunk_rule(rows, HEADS.num_kv_heads, None, traits), rows, 999, (8, 2, 128), META)
        yield name, decode_attention_launch(q, out, cache, step_batch(rows), work, 0.1, traits)
    many, big = empty(8192, 16, 128, dtype=dtype), empty(8192, 2048, dtype=dtype)
    yield "prefill_attention, fp8", prefill_attention_launch(many, big, cache, batch, 0.1, None, traits)


def step_launches() -> Iterator[tuple[str, Launch]]:
    """What tells the device of a step, and what brings its tokens back."""
    ints = partial(empty, dtype=torch.int32)
    long, turns = empty(64, dtype=torch.int64), empty(1, dtype=torch.int64)
    yield "receive", receive_launch(ints(3, 9999), ints(9999), ints(9999), turns, 208)
    yield "hand_out", hand_out_launch(ints(64), ints(3, 256), turns)
    rows, tensors = StepRows(ints(64), ints(65), ints(64)), StepTensors(long, long, long, ints(64, 256))
    yield "lay_out_step", lay_out_step_launch(ints(16), ints(64), rows, ints(64, 256), ints(64), tensors, 32)


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of which only shape and type matter."""
    return torch.empty(shape, dtype=dtype, device=META)


def step_batch(rows: int) -> StepBatch:
    """A batch of as many rows as tokens."""
    long, lens = empty(rows, dtype=torch.int64), empty(rows, dtype=torch.int32)
    tables, none = empty(rows, 256, dtype=torch.int32), torch.empty(0, dtype=torch.int32).numpy()
    return StepBatch(long, long, empty(rows + 1, dtype=torch.int32), lens, tables, none, none)


def report(launch: Launch, capability: int) -> dict[str, object]:
    """Compile a launch: shared memory, registers, bytes of stack (spills) and telling instructions."""
    names = launch.kernel.arg_names
    if "EARLY" in names:
        launch = launch.early() if capability >= 90 else replace(launch, constants={**launch.constants, "EARLY": False})
    arguments = {**launch.arguments, **launch.constants}
    constants = {
        n: arguments[n] for n in names if n in launch.constants or arguments[n] is None or is_one(arguments[n])
    }
    signature = {n: "constexpr" if n in constants else kind(arguments[n]) for n in names}
    aligned = {
        (i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if n not in constants and even(arguments[n])
    }
    options = {"num_warps": launch.num_warps, "num_stages": launch.num_stages, **launch.options}
    source = ASTSource(launch.kernel, signature, constants, aligned)
    built = triton.compile(source, GPUTarget("cuda", capability, 32), options)
    registers, stack = resources(built.asm["cubin"])
    found = [name for name, pattern in INSTRUCTIONS.items() if re.search(pattern, built.asm["ptx"])]
    known = {"registers": registers, "stack": stack, "instructions": found, "arguments": names}
    return {"shared": built.metadata.shared, **known}


def is_one(argument: Argument) -> bool:
    """Triton compiles a 1 in."""
    return isinstance(argument, int) and argument == 1


def kind(argument: Argument) -> str:
    """An argument's type as Triton names it."""
    if isinstance(argument, Tensor):
        return POINTERS[argument.dtype]
    return "fp32" if isinstance(argument, float) else "i32"


def even(argument: Argument) -> bool:
    """Whether Triton knows it to be divisible by 16."""
    return isinstance(argument, Tensor) or (isinstance(argument, int) and argument % 16 == 0)


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers of a thread and bytes of its stack, by cuobjdump."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        tool = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path)]
        text = subprocess.run(tool, capture_output=True, text=True, check=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", text).groups()
    return int(registers), int(stack)


if __name__ == "__main__":
    main()
