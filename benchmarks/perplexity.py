"""What each weight mode costs in perplexity: `python benchmarks/perplexity.py [--model M] [--text FILE] [--tokens N]`.

Every mode reads the same tokens of the same text in windows of 512. Ratios are to the file's own values in float32;
int8 is to stay within 1.02 of bfloat16, int4 within 1.02 of the file's own values.
"""

import argparse
import math
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from headrace.core.config import EMBEDDED_MODEL, Quantization
from headrace.kernels.batch import make_step_batch
from headrace.kernels.ops import HeadShape, kv_cache
from headrace.kernels.select import select_ops
from headrace.models.decoder import Decoder
from headrace.models.load import load_model
from headrace.models.open import shape_of
from headrace.store.files import ModelFiles
from headrace.store.resolve import resolve
from headrace.text.tokenizer import open_tokenizer

CPU = torch.device("cpu")
WINDOW_TOKENS = 512
BLOCK_SIZE = 32
MODES: tuple[tuple[str, torch.dtype, Quantization], ...] = (
    ("float32, the file's own values", torch.float32, "none"),
    ("bfloat16", torch.bfloat16, "none"),
    ("auto", torch.bfloat16, "auto"),
    ("int8", torch.bfloat16, "int8"),
    ("int4", torch.bfloat16, "int4"),
)


def main() -> None:
    """Measure every mode and print one line for each."""
    arguments = _arguments()
    files = resolve(arguments.model)
    tokens = _tokens(files, arguments.text.read_text(encoding="utf-8"), arguments.tokens)
    print(f"{arguments.model}, {len(tokens)} tokens of {arguments.text.name}, windows of {WINDOW_TOKENS}")
    print(f"{'mode':32} {'perplexity':>10} {'to float32':>10} {'to bfloat16':>11} {'MB':>6}")
    measured: list[float] = []
    for label, dtype, quantization in MODES:
        decoder = _load(files, dtype, quantization)
        measured.append(perplexity(decoder, dtype, tokens))
        to_float, to_bfloat = measured[-1] / measured[0], measured[-1] / measured[min(1, len(measured) - 1)]
        megabytes = decoder.nbytes / 1e6
        print(f"{label:32} {measured[-1]:10.3f} {to_float:10.4f} {to_bfloat:11.4f} {megabytes:6.0f}", flush=True)


def perplexity(decoder: Decoder, dtype: torch.dtype, tokens: list[int]) -> float:
    """exp of the mean negative log-likelihood of each token given those before it in its window."""
    losses = [_losses(decoder, dtype, window) for window in _windows(tokens)]
    return math.exp(torch.cat(losses).mean().item())


def _losses(decoder: Decoder, dtype: torch.dtype, tokens: list[int]) -> Tensor:
    shape, blocks = decoder.shape, WINDOW_TOKENS // BLOCK_SIZE
    heads = HeadShape(shape.num_heads, shape.num_kv_heads, shape.head_dim)
    caches = kv_cache(shape.num_layers, blocks, BLOCK_SIZE, heads, dtype, CPU)
    batch = make_step_batch([len(tokens)], [len(tokens)], [range(blocks)], BLOCK_SIZE, CPU)
    ids = torch.tensor(tokens)
    with torch.inference_mode():
        logits = decoder.logits(decoder.forward(ids, batch, caches)[:-1]).float()
        return torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")


def _windows(tokens: list[int]) -> Iterable[list[int]]:
    windows = (tokens[first : first + WINDOW_TOKENS] for first in range(0, len(tokens), WINDOW_TOKENS))
    return (window for window in windows if len(window) > 1)


def _load(files: ModelFiles, dtype: torch.dtype, quantization: Quantization) -> Decoder:
    return load_model(
        files,
        shape_of(files),
        select_ops(CPU, dtype),
        dtype=dtype,
        quantization=quantization,
        device=CPU,
        max_model_len=WINDOW_TOKENS,
    )


def _tokens(files: ModelFiles, text: str, limit: int) -> list[int]:
    return open_tokenizer(files.path).encode(text)[:limit]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=EMBEDDED_MODEL)
    parser.add_argument("--text", type=Path, default=Path(__file__).parents[1] / "LICENSE")
    parser.add_argument("--tokens", type=int, default=2048)
    return parser.parse_args()


if __name__ == "__main__":
    main()
