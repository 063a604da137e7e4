"""Each CPU operation by itself: `python benchmarks/kernels_cpu.py [--threads N] [--dtype bfloat16] [--only NAME]`.

The sizes are SmolLM2-135M's. The floor is the time in which memory, as measured here, moves the bytes that the
operation must touch; weights rotate over more copies than the last cache holds, as the layers of a model do.
Implementations take turns, each is reported by its best run, as microseconds and as a multiple of the floor.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

import torch

from headrace.kernels.batch import make_step_batch
from headrace.kernels.cpu_native import KernelsUnavailable, NativeOps, start_build
from headrace.kernels.cpu_ops import CpuOps
from headrace.kernels.ops import HeadShape, Int4Groups, LayerCache, Linear, Ops, StepBatch
from headrace.kernels.torch_ops import TorchOps

HEADS = HeadShape(9, 3, 64)
BLOCK_SIZE = 32
HIDDEN = 576
LINEARS = {"qkv": (576, 960), "output": (576, 576), "gate_up": (576, 3072), "down": (1536, 576)}
TOKENS = (1, 8, 32, 128)
CACHE_BYTES = 64 << 20
STEPS: dict[str, list[tuple[int, int]]] = {
    "1 row of 256": [(1, 256)],
    "32 rows of 256": [(1, 256)] * 32,
    "31 rows of 128-256": [(1, 128 + 4 * n) for n in range(31)],
    "31 of 128-256, one of 8,192": [(1, 128 + 4 * n) for n in range(31)] + [(1, 8192)],
    "prefill of 128": [(128, 128)],
    "prefill of 2,048": [(2048, 2048)],
    "256 tokens after 1,792": [(256, 2048)],
    "24 rows of 200 and a prefill of 128": [(1, 200)] * 24 + [(128, 128)],
}
"""Steps to attend in: (new tokens, tokens in the cache after them) of each row."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What to time: `prepare` gives a call to repeat, `nbytes` is what it must move."""

    name: str
    nbytes: int
    prepare: Callable[[Ops], Callable[[], object]]


def main() -> None:
    """Time everything and print one line for each operation."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    dtype = getattr(torch, arguments.dtype)
    candidates = _implementations(dtype)
    bandwidth = _copy_bandwidth()
    print(
        f"{arguments.threads} threads, {arguments.dtype}, copying at {bandwidth / 1e9:.1f} GB/s; microseconds (floors)"
    )
    print(f"{'':42}{'floor':>9}" + "".join(f"{name:>18}" for name in candidates))
    for operation in _operations(dtype):
        if arguments.only not in operation.name:
            continue
        floor = operation.nbytes / bandwidth
        calls = {name: operation.prepare(ops) for name, ops in candidates.items()}
        times = _best_times(calls, arguments.seconds)
        cells = "".join(f"{t * 1e6:>10.1f} {f'({t / floor:.1f})':>7}" for t in times.values())
        print(f"{operation.name:42}{floor * 1e6:>9.1f}{cells}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--seconds", type=float, default=0.1, help="for each implementation of each operation")
    parser.add_argument("--only", default="", help="operations whose name holds this, for example attend")
    return parser.parse_args()


def _implementations(dtype: torch.dtype) -> dict[str, Ops]:
    candidates: dict[str, Ops] = {"specification": TorchOps(), "torch": CpuOps(dtype)}
    try:
        candidates["compiled"] = NativeOps(start_build().result(), dtype)
    except KernelsUnavailable as reason:
        print(f"compiled kernels: {reason}")
    return candidates


def _copy_bandwidth() -> float:
    """Bytes per second, read and written together."""
    source = torch.ones(2 * CACHE_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best_times({"copy": lambda: target.copy_(source)}, 1.0)["copy"]


def _best_times(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """The shortest run of each, in seconds; they take turns until each has had its time."""
    best, left = dict.fromkeys(calls, float("inf")), dict.fromkeys(calls, seconds)
    for call in calls.values():
        call()
    while any(rest > 0 for rest in left.values()):
        for name in (name for name, rest in left.items() if rest > 0):
            start = time.perf_counter()
            calls[name]()
            elapsed = time.perf_counter() - start
            best[name] = min(best[name], elapsed)
            left[name] -= elapsed
    return best


def _operations(dtype: torch.dtype) -> Iterator[Operation]:
    for kind, bits in (("dense", 8 * dtype.itemsize), ("int8", 8), ("int4", 5)):
        for name, (inputs, outputs) in LINEARS.items():
            for tokens in TOKENS:
                yield _linear(
                    f"{kind} {name} {inputs}x{outputs}, m={tokens}", kind, bits, inputs, outputs, tokens, dtype
                )
    for tokens in TOKENS:
        yield from _elementwise(tokens, dtype)
    for name, rows in STEPS.items():
        yield _attend(name, rows, dtype)


def _linear(name: str, kind: str, bits: int, inputs: int, outputs: int, tokens: int, dtype: torch.dtype) -> Operation:
    x = torch.randn(tokens, inputs).to(dtype)
    weight_bytes = inputs * outputs * bits // 8

    def prepare(ops: Ops) -> Callable[[], object]:
        copies = [_make_linear(ops, kind, inputs, outputs, dtype) for _ in range(1 + CACHE_BYTES // weight_bytes)]
        layers = cycle(copies)
        return lambda: next(layers)(x)

    return Operation(name, weight_bytes + tokens * (inputs + outputs) * dtype.itemsize, prepare)


def _make_linear(ops: Ops, kind: str, inputs: int, outputs: int, dtype: torch.dtype) -> Linear:
    if kind == "int4":
        scale = torch.full((outputs, inputs // 32), 0.01)
        return ops.int4(Int4Groups(torch.randint(0, 16, (outputs, inputs), dtype=torch.uint8), scale, -8 * scale))
    weight = torch.randn(outputs, inputs, dtype=torch.float32).to(dtype)
    return ops.int8(weight) if kind == "int8" else ops.dense(weight)


def _elementwise(tokens: int, dtype: torch.dtype) -> Iterator[Operation]:
    x, residual = torch.randn(tokens, HIDDEN).to(dtype), torch.randn(tokens, HIDDEN)
    weight, gate_up = torch.ones(HIDDEN, dtype=dtype), torch.randn(tokens, 3072).to(dtype)
    qkv = torch.randn(tokens, (HEADS.num_heads + 2 * HEADS.num_kv_heads) * HEADS.head_dim).to(dtype)
    cos_sin = torch.randn(4096, HEADS.head_dim)
    batch, cache = _step([(1, 256)] * tokens, dtype)
    yield Operation(f"rms_norm, m={tokens}", 2 * x.nbytes, lambda ops: lambda: ops.rms_norm(x, weight, 1e-5))
    yield Operation(
        f"add_rms_norm, m={tokens}",
        2 * x.nbytes + 2 * residual.nbytes,
        lambda ops: lambda: ops.add_rms_norm(x, residual, weight, 1e-5),
    )
    yield Operation(f"silu_and_mul, m={tokens}", 3 * gate_up.nbytes // 2, lambda ops: lambda: ops.silu_and_mul(gate_up))
    yield Operation(
        f"rope_and_cache, m={tokens}",
        2 * qkv.nbytes,
        lambda ops: _planned(batch, lambda step: ops.rope_and_cache(qkv, HEADS, cos_sin, step, cache)),
    )


def _attend(name: str, rows: Sequence[tuple[int, int]], dtype: torch.dtype) -> Operation:
    batch, cache = _step(rows, dtype)
    q = torch.randn(len(batch.positions), HEADS.num_heads, HEADS.head_dim).to(dtype)
    token_bytes = 2 * HEADS.num_kv_heads * HEADS.head_dim * dtype.itemsize
    return Operation(
        f"attend, {name}",
        sum(length for _, length in rows) * token_bytes + 2 * q.nbytes,
        lambda ops: _planned(batch, lambda step: ops.attend(q, cache, step, 0.125, None)),
    )


def _planned(batch: StepBatch, call: Callable[[StepBatch], object]) -> Callable[[], object]:
    """A layer's call on a batch of its own: what the first layer plans, the others find."""
    fields = (batch.positions, batch.slots, batch.query_start, batch.context_lens, batch.block_tables)
    own = StepBatch(*fields, batch.query_lens, batch.kv_lens)
    return lambda: call(own)


def _step(rows: Sequence[tuple[int, int]], dtype: torch.dtype) -> tuple[StepBatch, LayerCache]:
    needs = [-(-length // BLOCK_SIZE) for _, length in rows]
    order = iter(torch.randperm(sum(needs)).tolist())
    tables = [[next(order) for _ in range(need)] for need in needs]
    shape = (2, sum(needs), HEADS.num_kv_heads, BLOCK_SIZE, HEADS.head_dim)
    keys, values = torch.randn(shape).to(dtype).unbind()
    batch = make_step_batch([new for new, _ in rows], [length for _, length in rows], tables, BLOCK_SIZE)
    return batch, LayerCache(keys, values)


if __name__ == "__main__":
    main()
