"""What this card reaches at most, as one JSON line: `python benchmarks/gpu_ceilings.py`.

A process of its own: the memory that it takes is an engine's to use afterwards.
"""

import json
import statistics

import torch

from gpu_kernels import DEVICE, copy_bandwidth

SIZE, RUNS = 8192, 20


def matrix_flops() -> float:
    """Multiplications and additions a second of a large bf16 product."""
    left, right = (torch.randn(SIZE, SIZE, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return 2 * SIZE**3 / statistics.median(_product_seconds(left, right) for _ in range(RUNS))


def _product_seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    torch.matmul(left, right)
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


if __name__ == "__main__":
    rates = {"bytes_per_second": copy_bandwidth(), "flops_per_second": matrix_flops()}
    print(json.dumps({"card": torch.cuda.get_device_name(), **rates}))
