"""A whole decode step on a GPU, forward and logits in one CUDA graph: `python benchmarks/gpu_forward.py [--profile]`.

Random weights of the true shapes. The floor is the bytes of weights, keys and values over the memory's rate, as a copy
measures it here. The profile gives each kernel the time from the end of what ended before it to its own end: kernels
overlap where the card launches them early, and these times add up to the step.
"""

import argparse
import itertools
import statistics
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from gpu_kernels import BLOCK_SIZE, DEVICE, DTYPE, copy_bandwidth, random_tensor, replay_seconds
from headrace.kernels.batch import make_step_batch
from headrace.kernels.ops import HeadShape, Linear, Ops, StepBatch, kv_cache
from headrace.kernels.select import select_ops
from headrace.models.decoder import Decoder, DecoderLayer
from headrace.planner.shape import ModelShape

SHAPES = {
    "0.6B": ModelShape("qwen3", 151_936, 1024, 3072, 28, 16, 8, 128, 40_960, 1e-6, 1e6, True, qk_norm=True),
    "8B": ModelShape("llama", 128_256, 4096, 14_336, 32, 32, 8, 128, 131_072, 1e-5, 5e5, False),
}
REPLAYS, PROFILED = 40, 5
NAME_WIDTH = 70


def main() -> None:
    """One line for each model and batch size, with its breakdown by kernel if asked for."""
    arguments = _arguments()
    torch.set_grad_enabled(False)
    bandwidth = copy_bandwidth()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, copying at {bandwidth / 1e12:.2f} TB/s")
    for name in arguments.model:
        model = random_decoder(SHAPES[name], select_ops(DEVICE, DTYPE))
        for rows in arguments.batch:
            graph = _captured(model, rows, arguments.context)
            floor = _nbytes(model, rows, arguments.context) / bandwidth
            seconds = statistics.median(replay_seconds(graph) for _ in range(REPLAYS))
            times = f"{seconds * 1e3:8.3f} ms a step, floor {floor * 1e3:.3f} ({floor / seconds:.0%})"
            print(f"{name}, {rows} x {arguments.context}: {times}", flush=True)
            if arguments.profile:
                _print_profile(graph)
        del model


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 32, 64, 128, 256], help="rows of a step")
    parser.add_argument("--context", type=int, default=640, help="tokens of each row")
    parser.add_argument("--profile", action="store_true", help="microseconds a step by kernel")
    return parser.parse_args()


def random_decoder(shape: ModelShape, ops: Ops) -> Decoder:
    """Weights that keep activations at their size; a head of its own."""
    embedding, head = random_tensor(shape.vocab_size, shape.hidden_size), _linear(shape.vocab_size, shape, ops)
    layers = [_layer(shape, ops) for _ in range(shape.num_layers)]
    cos_sin = random_tensor(8192, shape.head_dim, dtype=torch.float32)
    nbytes = sum(layer.nbytes for layer in layers) + head.nbytes
    return Decoder(shape, ops, embedding, layers, _norm(shape.hidden_size), head, cos_sin, nbytes=nbytes)


def _layer(shape: ModelShape, ops: Ops) -> DecoderLayer:
    hidden, inner = shape.hidden_size, shape.intermediate_size
    return DecoderLayer(
        input_norm=_norm(hidden),
        qkv=_linear(shape.q_size + 2 * shape.kv_size, shape, ops),
        output=_linear(hidden, shape, ops, shape.q_size),
        mlp_norm=_norm(hidden),
        gate_up=_linear(2 * inner, shape, ops),
        down=_linear(hidden, shape, ops, inner),
        q_norm=_norm(shape.head_dim) if shape.qk_norm else None,
        k_norm=_norm(shape.head_dim) if shape.qk_norm else None,
    )


def _linear(outputs: int, shape: ModelShape, ops: Ops, inputs: int | None = None) -> Linear:
    width = shape.hidden_size if inputs is None else inputs
    return ops.dense(random_tensor(outputs, width).mul_(width**-0.5))


def _norm(width: int) -> Tensor:
    return torch.ones(width, dtype=DTYPE, device=DEVICE)


def _nbytes(model: Decoder, rows: int, context: int) -> int:
    """What a step must read: every weight, and every key and value of every row."""
    return model.nbytes + rows * context * model.shape.num_layers * 2 * model.shape.kv_size * DTYPE.itemsize


def _captured(model: Decoder, rows: int, context: int) -> torch.cuda.CUDAGraph:
    """The step of `rows` that add one token each, compiled and captured."""
    shape, batch = model.shape, _batch(rows, context)
    heads = HeadShape(shape.num_heads, shape.num_kv_heads, shape.head_dim)
    caches = kv_cache(shape.num_layers, int(batch.block_tables.max()) + 1, BLOCK_SIZE, heads, DTYPE, DEVICE)
    for cache in caches:
        cache.k.normal_()
        cache.v.normal_()
    token_ids = torch.zeros(rows, dtype=torch.int64, device=DEVICE)

    def step() -> Tensor:
        batch.plan = None
        return model.logits(model.forward(token_ids, batch, caches))

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = step()
    graph.replay()
    assert logits.isfinite().all()
    return graph


def _batch(rows: int, context: int) -> StepBatch:
    """Rows whose blocks are scattered."""
    blocks = -(-context // BLOCK_SIZE)
    tables = torch.randperm(rows * blocks).view(rows, blocks).tolist()
    return make_step_batch([1] * rows, [context] * rows, tables, BLOCK_SIZE, DEVICE)


def _print_profile(graph: torch.cuda.CUDAGraph) -> None:
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(PROFILED):
            graph.replay()
        torch.cuda.synchronize()
    spans = [(e.time_range.end, e.name) for e in profiler.events() if e.device_type == DeviceType.CUDA]
    for name, times in sorted(_exclusive(spans).items(), key=lambda item: -sum(item[1])):
        each, calls = statistics.median(times), round(len(times) / PROFILED)
        print(f"    {name[:NAME_WIDTH]:{NAME_WIDTH}}{calls:>5} x{each:>8.2f} = {each * calls:>8.1f} us", flush=True)


def _exclusive(spans: Sequence[tuple[float, str]]) -> dict[str, list[float]]:
    """Kernel -> for each call, microseconds from the end of what ended before it to its own end."""
    times = defaultdict[str, list[float]](list)
    ends = sorted(spans)
    for (before, _), (end, name) in itertools.pairwise(ends):
        times[name].append(end - before)
    return times


if __name__ == "__main__":
    main()
