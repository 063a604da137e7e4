"""Each GPU kernel by itself: `python benchmarks/gpu_kernels.py [--only NAME] [--peer]`.

The shapes are Qwen3-0.6B's and Llama-3.1-8B's. The floor is the time in which the card's memory, as measured here,
moves the bytes that the operation must touch, or its matrix units do the arithmetic, whichever is longer. Calls go
round enough layers that nothing stays in the L2 cache, as in a model; they are captured in one CUDA graph, so that the
host's time is not in the figures. Each line is the median of replays, in microseconds a call.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from headrace.kernels.batch import make_step_batch
from headrace.kernels.ops import HeadShape, LayerCache, Ops, StepBatch
from headrace.kernels.select import select_ops

DEVICE = torch.device("cuda")
DTYPE = torch.bfloat16
BLOCK_SIZE = 16
COLD_BYTES = 256 << 20
MOST_LAYERS = 16
MATRIX_FLOPS = 800e12
"""A bf16 matrix product of 8192 on an H100, measured."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the kernels see of a model."""

    heads: HeadShape
    hidden: int
    intermediate: int
    qk_norm: bool


SHAPES = {
    "0.6B": Shape(HeadShape(16, 8, 128), 1024, 3072, True),
    "8B": Shape(HeadShape(32, 8, 128), 4096, 14336, False),
}
BATCHES, CONTEXTS = (1, 8, 32, 128, 256), (256, 1024, 4096)
PREFILLS: dict[str, list[tuple[int, int]]] = {
    "1 x 128": [(128, 128)],
    "1 x 2048": [(2048, 2048)],
    "4 x 2048": [(2048, 2048)] * 4,
    "1 x 8192": [(8192, 8192)],
    "512 after 3584": [(512, 4096)],
    "128 decode + 512": [(1, 1024)] * 128 + [(512, 512)],
}


@dataclass(frozen=True, slots=True)
class Operation:
    """What to time: a call for each layer; the floor follows from bytes and arithmetic."""

    name: str
    nbytes: int
    flops: float
    prepare: Callable[[Ops], Sequence[Callable[[], object]]]


def main() -> None:
    """Time everything and print one line for each operation."""
    arguments = _arguments()
    torch.set_grad_enabled(False)
    ops, bandwidth = select_ops(DEVICE, DTYPE), _copy_bandwidth()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, copying at {bandwidth / 1e12:.2f} TB/s")
    print(f"{'':44}{'floor us':>10}{'us':>10}{'of floor':>10}{'TB/s':>8}{'TFLOP/s':>9}")
    for operation in _operations(arguments.peer):
        if arguments.only in operation.name:
            _print(operation, measure(operation.prepare(ops)), bandwidth)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="operations whose name holds this, for example 'decode 0.6B'")
    parser.add_argument("--peer", action="store_true", help="also torch's scaled_dot_product_attention, unpaged")
    return parser.parse_args()


def _print(operation: Operation, seconds: float, bandwidth: float) -> None:
    floor = max(operation.nbytes / bandwidth, operation.flops / MATRIX_FLOPS)
    rates = f"{operation.nbytes / seconds / 1e12:>8.2f}{operation.flops / seconds / 1e12:>9.0f}"
    times = f"{floor * 1e6:>10.2f}{seconds * 1e6:>10.2f}{floor / seconds:>10.0%}"
    print(f"{operation.name:44}{times}{rates}", flush=True)


def measure(calls: Sequence[Callable[[], object]]) -> float:
    """Seconds a call, of a graph in which each call stands equally often."""
    for call in calls:
        call()
    rounds = -(-MOST_LAYERS // len(calls))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            for call in calls:
                call()
    graph.replay()
    times = [_replay_seconds(graph) for _ in range(15)]
    return statistics.median(times) / (rounds * len(calls))


def _replay_seconds(graph: torch.cuda.CUDAGraph) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    graph.replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def _copy_bandwidth() -> float:
    """Bytes per second, read and written together; outside a graph, which would copy by another engine."""
    source = torch.randn(1 << 30, device=DEVICE)
    target = torch.empty_like(source)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    target.copy_(source)
    start.record()
    for _ in range(10):
        target.copy_(source)
    end.record()
    end.synchronize()
    return 20 * source.nbytes / start.elapsed_time(end) * 1e3


def _operations(peer: bool) -> Iterator[Operation]:
    for name, shape in SHAPES.items():
        for tokens in (1, 32, 256, 8192):
            yield from _small(name, shape, tokens)
        for batch in BATCHES:
            for context in CONTEXTS:
                yield _attend(f"decode {name} {batch} x {context}", shape, [(1, context)] * batch)
                if peer:
                    yield _peer(f"decode {name} {batch} x {context} (SDPA)", shape, 1, context, batch)
        mixed = [(1, 100 + 1900 * n // 255) for n in range(256)]
        yield _attend(f"decode {name} 256 x 100-2000", shape, mixed)
        yield _attend(f"decode {name} 255 x 256, 1 x 32768", shape, [(1, 256)] * 255 + [(1, 32768)])
        for label, rows in PREFILLS.items():
            yield _attend(f"prefill {name} {label}", shape, rows)
        if peer:
            yield _peer(f"prefill {name} 4 x 2048 (SDPA)", shape, 2048, 2048, 4)
            yield _peer(f"prefill {name} 1 x 8192 (SDPA)", shape, 8192, 8192, 1)


def _layers(nbytes: int) -> int:
    """Copies of an operation's data that together do not fit the L2 cache."""
    return min(max(-(-COLD_BYTES // max(nbytes, 1)), 2), MOST_LAYERS)


def _random(*shape: int, dtype: torch.dtype = DTYPE) -> Tensor:
    return torch.randn(shape, device=DEVICE, dtype=dtype)


def _small(name: str, shape: Shape, tokens: int) -> Iterator[Operation]:
    hidden, element = tokens * shape.hidden, DTYPE.itemsize
    yield Operation(
        f"add_rms_norm {name} m={tokens}", hidden * (2 * element + 8), 0, lambda ops: _norms(ops, shape, tokens)
    )
    inner = tokens * shape.intermediate
    yield Operation(f"silu_and_mul {name} m={tokens}", 3 * inner * element, 0, lambda ops: _silus(ops, shape, tokens))
    heads = shape.heads
    packed = tokens * (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim
    rotated = 2 * packed * element + tokens * 4 * heads.head_dim
    yield Operation(f"rope_and_cache {name} m={tokens}", rotated, 0, lambda ops: _rotations(ops, shape, tokens))


def _norms(ops: Ops, shape: Shape, tokens: int) -> list[Callable[[], object]]:
    weight = _random(shape.hidden)

    def call() -> Callable[[], object]:
        x, residual = _random(tokens, shape.hidden), _random(tokens, shape.hidden, dtype=torch.float32)
        return lambda: ops.add_rms_norm(x, residual, weight, 1e-6)

    return [call() for _ in range(_layers(tokens * shape.hidden * 6))]


def _silus(ops: Ops, shape: Shape, tokens: int) -> list[Callable[[], object]]:
    def call() -> Callable[[], object]:
        gate_up = _random(tokens, 2 * shape.intermediate)
        return lambda: ops.silu_and_mul(gate_up)

    return [call() for _ in range(_layers(tokens * shape.intermediate * 4))]


def _rotations(ops: Ops, shape: Shape, tokens: int) -> list[Callable[[], object]]:
    heads, cos_sin = shape.heads, _random(4096, shape.heads.head_dim, dtype=torch.float32)
    norms = (_random(heads.head_dim), _random(heads.head_dim)) if shape.qk_norm else (None, None)
    batch, caches = _step([(1, 17)] * tokens, heads)
    width = (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim

    def call(cache: LayerCache) -> Callable[[], object]:
        qkv = _random(tokens, width)
        return lambda: ops.rope_and_cache(qkv, heads, cos_sin, batch, cache, *norms, eps=1e-6)

    return [call(cache) for cache in caches]


def _attend(name: str, shape: Shape, rows: list[tuple[int, int]]) -> Operation:
    heads, tokens = shape.heads, sum(new for new, _ in rows)
    kv = sum(length for _, length in rows) * 2 * heads.num_kv_heads * heads.head_dim * DTYPE.itemsize
    pairs = sum(new * (2 * length - new + 1) / 2 for new, length in rows)
    queries = 2 * tokens * heads.num_heads * heads.head_dim * DTYPE.itemsize

    def prepare(ops: Ops) -> list[Callable[[], object]]:
        batch, caches = _step(rows, heads)
        q = _random(tokens, heads.num_heads, heads.head_dim)
        return [lambda cache=cache: ops.attend(q, cache, batch, 0.09, None) for cache in caches]

    return Operation(name, kv + queries, 4 * pairs * heads.num_heads * heads.head_dim, prepare)


def _peer(name: str, shape: Shape, new: int, context: int, batch: int) -> Operation:
    """Without pages, and every row equally long: what the library may do better."""
    ours, heads = _attend(name, shape, [(new, context)] * batch), shape.heads

    def prepare(_: Ops) -> list[Callable[[], object]]:
        q = _random(batch, heads.num_heads, new, heads.head_dim)
        shapes = (batch, heads.num_kv_heads, context, heads.head_dim)
        pairs = [(_random(*shapes), _random(*shapes)) for _ in range(_layers(ours.nbytes))]
        return [
            lambda k=k, v=v: F.scaled_dot_product_attention(q, k, v, is_causal=new > 1, enable_gqa=True)
            for k, v in pairs
        ]

    return Operation(name, ours.nbytes, ours.flops, prepare)


def _step(rows: Sequence[tuple[int, int]], heads: HeadShape) -> tuple[StepBatch, list[LayerCache]]:
    """A step over scattered blocks, and the caches of several layers."""
    needs = [-(-length // BLOCK_SIZE) for _, length in rows]
    order = iter(torch.randperm(sum(needs)).tolist())
    tables = [[next(order) for _ in range(need)] for need in needs]
    batch = make_step_batch([new for new, _ in rows], [length for _, length in rows], tables, BLOCK_SIZE, DEVICE)
    shape = (2, sum(needs), heads.num_kv_heads, BLOCK_SIZE, heads.head_dim)
    nbytes = 2 * sum(needs) * heads.num_kv_heads * BLOCK_SIZE * heads.head_dim * DTYPE.itemsize
    return batch, [LayerCache(*_random(*shape).unbind()) for _ in range(_layers(nbytes))]


if __name__ == "__main__":
    main()
