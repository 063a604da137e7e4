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
from headrace.kernels.gpu.row_params import pack_row_params
from headrace.kernels.gpu.sampling import sample_launches
from headrace.kernels.gpu.sampling_workspace import empty_workspace
from headrace.kernels.ops import HeadShape, LayerCache, Linear, Ops, ResidualStream, StepBatch
from headrace.kernels.select import select_ops
from headrace.kernels.torch_ops import TorchOps

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

VOCAB_SIZE = 151_936
SAMPLED: dict[str, tuple[float, int, float]] = {
    "greedy": (0.0, 0, 1.0),
    "plain": (0.6, 0, 1.0),
    "top_p": (0.6, 0, 0.95),
    "top_k + top_p": (0.6, 20, 0.95),
}
"""Temperature, top_k and top_p."""


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
    ops, bandwidth = select_ops(DEVICE, DTYPE), copy_bandwidth()
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
    times = [replay_seconds(graph) for _ in range(15)]
    return statistics.median(times) / (rounds * len(calls))


def replay_seconds(graph: torch.cuda.CUDAGraph) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    graph.replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def copy_bandwidth() -> float:
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
        for tokens in (1, 2, 4, 8, 16, 32):
            yield from _linears(name, shape, tokens, peer)
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
    for rows in (1, 32, 256):
        for kind in SAMPLED:
            yield _sampling(f"sample {kind}, flat S={rows}", rows, kind, peak=0.0)
            if SAMPLED[kind][2] < 1:
                yield _sampling(f"sample {kind}, peaked S={rows}", rows, kind, peak=12.0)


def _layers(nbytes: int) -> int:
    """Copies of an operation's data that together do not fit the L2 cache."""
    return min(max(-(-COLD_BYTES // max(nbytes, 1)), 2), MOST_LAYERS)


def random_tensor(*shape: int, dtype: torch.dtype = DTYPE) -> Tensor:
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
    weight = random_tensor(shape.hidden)

    def call() -> Callable[[], object]:
        x, residual = random_tensor(tokens, shape.hidden), random_tensor(tokens, shape.hidden, dtype=torch.float32)
        return lambda: ops.add_rms_norm(x, residual, weight, 1e-6)

    return [call() for _ in range(_layers(tokens * shape.hidden * 6))]


def _silus(ops: Ops, shape: Shape, tokens: int) -> list[Callable[[], object]]:
    def call() -> Callable[[], object]:
        gate_up = random_tensor(tokens, 2 * shape.intermediate)
        return lambda: ops.silu_and_mul(gate_up)

    return [call() for _ in range(_layers(tokens * shape.intermediate * 4))]


def _linears(name: str, shape: Shape, tokens: int, peer: bool) -> Iterator[Operation]:
    """The linear layers of few tokens with their neighbours, and each product alone by torch."""
    heads, hidden, inner = shape.heads, shape.hidden, shape.intermediate
    packed, attended = (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim, heads.num_heads * heads.head_dim
    norm, total = torch.ones(hidden, dtype=DTYPE, device=DEVICE), random_tensor(tokens, hidden, dtype=torch.float32)

    def normed(ops: Ops, linear: Linear, _: Tensor) -> object:
        return ops.norm_linear(ResidualStream(total, DTYPE), norm, 1e-6, linear)

    def gated(ops: Ops, linear: Linear, _: Tensor) -> object:
        return ops.norm_gate_up(ResidualStream(total, DTYPE), norm, 1e-6, linear)

    def added(ops: Ops, linear: Linear, x: Tensor) -> object:
        return ops.linear_add(x, linear, ResidualStream(total, DTYPE))

    for label, inputs, outputs, call in (
        ("norm_qkv", hidden, packed, normed),
        ("norm_gate_up", hidden, 2 * inner, gated),
        ("output_add", attended, hidden, added),
        ("down_add", inner, hidden, added),
    ):
        yield _linear(f"{label} {name} m={tokens}", tokens, inputs, outputs, call)
        if peer:
            product = f"linear {inputs} to {outputs} m={tokens} (torch)"
            yield _linear(product, tokens, inputs, outputs, lambda _, linear, x: linear(x), TorchOps())


def _linear(
    name: str,
    tokens: int,
    inputs: int,
    outputs: int,
    call: Callable[[Ops, Linear, Tensor], object],
    made_by: Ops | None = None,
) -> Operation:
    nbytes = inputs * outputs * DTYPE.itemsize

    def prepare(ops: Ops) -> list[Callable[[], object]]:
        x = random_tensor(tokens, inputs)
        layers = [(made_by or ops).dense(random_tensor(outputs, inputs)) for _ in range(_layers(nbytes))]
        return [lambda layer=layer: call(ops, layer, x) for layer in layers]

    return Operation(name, nbytes, 2 * tokens * inputs * outputs, prepare)


def _rotations(ops: Ops, shape: Shape, tokens: int) -> list[Callable[[], object]]:
    heads, cos_sin = shape.heads, random_tensor(4096, shape.heads.head_dim, dtype=torch.float32)
    norms = (random_tensor(heads.head_dim), random_tensor(heads.head_dim)) if shape.qk_norm else (None, None)
    batch, caches = step_of([(1, 17)] * tokens, heads)
    width = (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim

    def call(cache: LayerCache) -> Callable[[], object]:
        qkv = random_tensor(tokens, width)
        return lambda: ops.rope_and_cache(qkv, heads, cos_sin, batch, cache, *norms, eps=1e-6)

    return [call(cache) for cache in caches]


def _attend(name: str, shape: Shape, rows: list[tuple[int, int]]) -> Operation:
    heads, tokens = shape.heads, sum(new for new, _ in rows)
    kv = sum(length for _, length in rows) * 2 * heads.num_kv_heads * heads.head_dim * DTYPE.itemsize
    pairs = sum(new * (2 * length - new + 1) / 2 for new, length in rows)
    queries = 2 * tokens * heads.num_heads * heads.head_dim * DTYPE.itemsize

    def prepare(ops: Ops) -> list[Callable[[], object]]:
        batch, caches = step_of(rows, heads)
        q = random_tensor(tokens, heads.num_heads, heads.head_dim)
        return [lambda cache=cache: ops.attend(q, cache, batch, 0.09, None) for cache in caches]

    return Operation(name, kv + queries, 4 * pairs * heads.num_heads * heads.head_dim, prepare)


def _peer(name: str, shape: Shape, new: int, context: int, batch: int) -> Operation:
    """Without pages, and every row equally long: what the library may do better."""
    ours, heads = _attend(name, shape, [(new, context)] * batch), shape.heads

    def prepare(_: Ops) -> list[Callable[[], object]]:
        q = random_tensor(batch, heads.num_heads, new, heads.head_dim)
        shapes = (batch, heads.num_kv_heads, context, heads.head_dim)
        pairs = [(random_tensor(*shapes), random_tensor(*shapes)) for _ in range(_layers(ours.nbytes))]
        return [
            lambda k=k, v=v: F.scaled_dot_product_attention(q, k, v, is_causal=new > 1, enable_gqa=True)
            for k, v in pairs
        ]

    return Operation(name, ours.nbytes, ours.flops, prepare)


def _sampling(name: str, rows: int, kind: str, peak: float) -> Operation:
    """From normal logits, of which 5 a row may be larger by `peak`, as a trained model's are."""
    temperature, top_k, top_p = SAMPLED[kind]
    nbytes = rows * VOCAB_SIZE * DTYPE.itemsize
    packed = [pack_row_params(temperature, top_k, top_p, 0.0, seed) for seed in range(rows)]
    params = torch.tensor(packed, dtype=torch.int32, device=DEVICE)
    row_ids, tokens, last_tokens = (torch.arange(rows, dtype=torch.int32, device=DEVICE) for _ in range(3))
    workspace = empty_workspace(rows, VOCAB_SIZE, DEVICE)

    def call() -> Callable[[], object]:
        logits = random_tensor(rows, VOCAB_SIZE)
        logits[:, torch.randint(VOCAB_SIZE, (5,), device=DEVICE)] += peak
        launches = sample_launches(logits, row_ids, row_ids, params, tokens, last_tokens, workspace)
        return lambda: [launch.run() for launch in launches]

    return Operation(name, nbytes, 0, lambda _: [call() for _ in range(_layers(nbytes))])


def step_of(rows: Sequence[tuple[int, int]], heads: HeadShape) -> tuple[StepBatch, list[LayerCache]]:
    """A step over scattered blocks, and the caches of several layers."""
    needs = [-(-length // BLOCK_SIZE) for _, length in rows]
    order = iter(torch.randperm(sum(needs)).tolist())
    tables = [[next(order) for _ in range(need)] for need in needs]
    batch = make_step_batch([new for new, _ in rows], [length for _, length in rows], tables, BLOCK_SIZE, DEVICE)
    shape = (2, sum(needs), heads.num_kv_heads, BLOCK_SIZE, heads.head_dim)
    nbytes = 2 * sum(needs) * heads.num_kv_heads * BLOCK_SIZE * heads.head_dim * DTYPE.itemsize
    return batch, [LayerCache(*random_tensor(*shape).unbind()) for _ in range(_layers(nbytes))]


if __name__ == "__main__":
    main()
