"""In which form weights are kept, to the byte: 16-bit floats, int8, 4-bit groups, fp8, GGUF's blocks.

The layouts are those of the formats' own specifications: AutoAWQ, GPTQModel, compressed-tensors, ggml.h.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from headrace.core.errors import HeadraceError
from headrace.core.gguf_types import SERVED_TYPES
from headrace.planner.outline.matrix import Matrix, Role

_SCALE_BITS = 16
_UNREAD_BLOCKS: Final[Mapping[str, tuple[int, int]]] = {
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "IQ4_NL": (32, 18),
    "IQ4_XS": (256, 136),
}
"""GGUF types that can be planned and not read: elements and bytes of a block (ggml-common.h)."""


@dataclass(frozen=True, slots=True)
class Format:
    """How one matrix is kept: `bits` an element, and what scales and zero points take beside them.

    `group_bits` for each `group_size` columns of a row, `row_bytes` a row, `column_bytes` a column, `tile_bytes` for
    each tile of 128 x 128. `ragged` is the format of a matrix whose rows are no whole groups.
    """

    name: str
    bits: float
    group_size: int = 0
    group_bits: float = 0
    row_bytes: int = 0
    column_bytes: int = 0
    tile_bytes: int = 0
    ragged: "Format | None" = None

    def nbytes(self, matrix: Matrix, bias_bytes: int) -> int:
        """Bytes of the matrix with its scales, and of its biases."""
        rows, columns = matrix.rows, matrix.columns
        if self.ragged is not None and columns % self.group_size:
            return self.ragged.nbytes(matrix, bias_bytes)
        groups = math.ceil(columns / self.group_size) if self.group_size else 0
        tiles = math.ceil(rows / 128) * math.ceil(columns / 128)
        beside = rows * self.row_bytes + columns * self.column_bytes + tiles * self.tile_bytes
        one = rows * columns * self.bits / 8 + rows * groups * self.group_bits / 8 + beside
        return math.ceil(matrix.count * one) + matrix.bias_elements * bias_bytes


@dataclass(frozen=True, slots=True)
class WeightScheme:
    """The formats of a whole model, by what a matrix does. `experts` None means as other linear layers.

    A scheme that `splits_tie` keeps a tied head in a form of its own beside the embedding table.
    """

    name: str
    linear: Format
    plain: Format
    head: Format
    embedding: Format
    experts: Format | None = None
    splits_tie: bool = False

    def of(self, role: Role) -> Format:
        """The format of matrices of a role; norms, biases and routers are plain."""
        if role == "expert":
            return self.experts or self.linear
        formats = {"linear": self.linear, "head": self.head, "embedding": self.embedding}
        return formats.get(role, self.plain)

    def nbytes(self, matrix: Matrix) -> int:
        """Bytes of a matrix."""
        return self.of(matrix.role).nbytes(matrix, int(self.plain.bits) // 8)


FLOAT_BITS: Final[Mapping[str, int]] = {"float32": 32, "bfloat16": 16, "float16": 16}


def float_scheme(dtype: str) -> WeightScheme:
    """Everything in one float."""
    plain = Format(dtype, FLOAT_BITS[dtype])
    return WeightScheme(dtype, plain, plain, plain, plain)


def engine_int8(dtype: str) -> WeightScheme:
    """What `--quantization int8` makes while it loads: an fp32 scale a row, the head too, the table a float."""
    plain, linear = Format(dtype, FLOAT_BITS[dtype]), Format("int8", 8, row_bytes=4)
    return WeightScheme("int8", linear, plain, linear, plain, splits_tie=True)


def engine_int4(dtype: str, scale_bits: int = 32) -> WeightScheme:
    """What `--quantization int4` makes: groups of 32 with an fp32 scale and minimum, an int8 head.

    A linear layer whose rows are no whole groups becomes int8. Scales that a file has in 16 bits stay so.
    """
    plain, int8 = Format(dtype, FLOAT_BITS[dtype]), Format("int8", 8, row_bytes=4)
    linear = Format("int4", 4, 32, 2 * scale_bits, ragged=int8)
    return WeightScheme("int4", linear, plain, int8, plain, splits_tie=True)


def grouped(name: str, bits: int, group_size: int, *, zeros: bool, order: bool = False) -> WeightScheme:
    """AWQ, GPTQ and compressed-tensors: a 16-bit scale a group, `zeros` of `bits` each, `order` an int32 a column.

    `group_size` -1 is one group a row. Head and embedding stay 16-bit floats.
    """
    plain = Format("float16", 16)
    size = 1 << 40 if group_size == -1 else group_size
    group_bits = _SCALE_BITS + (bits if zeros else 0)
    linear = Format(name, bits, size, group_bits, column_bytes=4 if order else 0)
    return WeightScheme(name, linear, plain, plain, plain)


def scaled(name: str, *, tiles: bool) -> WeightScheme:
    """fp8 and int8 checkpoints: an fp32 scale a row, or one for each tile of 128 x 128 (DeepSeek-V3)."""
    plain = Format("bfloat16", 16)
    linear = Format(name, 8, row_bytes=0 if tiles else 4, tile_bytes=4 if tiles else 0)
    return WeightScheme(name, linear, plain, plain, plain)


def mxfp4_experts() -> WeightScheme:
    """gpt-oss: experts in 4-bit floats with an 8-bit scale for 32, all else bfloat16."""
    plain = Format("bfloat16", 16)
    return WeightScheme("mxfp4", plain, plain, plain, plain, experts=Format("mxfp4", 4, 32, 8))


def gguf_scheme(name: str) -> WeightScheme:
    """Every matrix in one GGUF type, vectors in fp32. Files that mix types are summed from their headers."""
    read = {kind.name: (kind.block_size, kind.block_bytes) for kind in SERVED_TYPES.values()}
    size, nbytes = {**read, **_UNREAD_BLOCKS}[name.upper()]
    packed, plain = Format(name.lower(), 8 * nbytes / size), Format("float32", 32)
    return WeightScheme(name.lower(), packed, plain, packed, packed)


GGUF_NAMES: Final = tuple(
    name.lower() for name in (*(kind.name for kind in SERVED_TYPES.values() if kind.block_size > 1), *_UNREAD_BLOCKS)
)

QUANTIZATIONS: Final = ("none", "int8", "int4", "fp8", "fp8-block", "awq", "gptq", "gptq-int8", "mxfp4", *GGUF_NAMES)
"""What `scheme_named` knows."""


def scheme_named(name: str, dtype: str) -> WeightScheme:
    """The scheme that a user names; floats in `dtype`. Raises `HeadraceError` for another name."""
    makers = {
        "none": lambda: float_scheme(dtype),
        "int8": lambda: engine_int8(dtype),
        "int4": lambda: engine_int4(dtype),
        "fp8": lambda: scaled("fp8", tiles=False),
        "fp8-block": lambda: scaled("fp8-block", tiles=True),
        "awq": lambda: grouped("awq", 4, 128, zeros=True),
        "gptq": lambda: grouped("gptq", 4, 128, zeros=True, order=True),
        "gptq-int8": lambda: grouped("gptq-int8", 8, 128, zeros=True, order=True),
        "mxfp4": mxfp4_experts,
    }
    if name in makers:
        return makers[name]()
    if name in GGUF_NAMES:
        return gguf_scheme(name)
    raise HeadraceError(
        f"quantization is {name!r}",
        rule=f"It must be one of {', '.join(QUANTIZATIONS)}",
        fix="Leave it out for the checkpoint's own",
        param="quantization",
    )
