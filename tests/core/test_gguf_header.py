"""The GGUF header against the gguf package, and against broken files."""

import struct
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.core.errors import HeadraceError
from headrace.core.gguf_header import read_header
from headrace.core.gguf_types import OTHER_TYPE_NAMES, SERVED_TYPES


def refused(path: Path) -> HeadraceError:
    """The error for a file that must be refused."""
    with pytest.raises(HeadraceError) as caught:
        read_header(path)
    assert str(path) in caught.value.what
    assert caught.value.fix
    return caught.value


def test_agrees_with_the_gguf_package(smollm2_gguf: Path) -> None:
    header, reader = read_header(smollm2_gguf), gguf.GGUFReader(smollm2_gguf)
    for tensor in reader.tensors:
        ours = header.tensors[tensor.name]
        assert (ours.type.name, ours.offset, ours.nbytes) == (
            tensor.tensor_type.name,
            tensor.data_offset,
            tensor.n_bytes,
        )
        assert list(ours.shape) == tensor.shape.tolist()[::-1]
    for key, value in header.scalars.items():
        assert reader.fields[key].contents() == value
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.merges"):
        field = reader.fields[key]
        assert header.strings(key) == [bytes(field.parts[i]).decode() for i in field.data]
    field = reader.fields["tokenizer.ggml.token_type"]
    assert header.numbers("tokenizer.ggml.token_type") == [int(field.parts[i][0]) for i in field.data]


def test_small_arrays_and_tensors(gguf_file: Path) -> None:
    header = read_header(gguf_file)
    assert header.strings("tokenizer.ggml.tokens") == ["<s>", "ä", ""]
    assert header.numbers("tokenizer.ggml.scores") == [0.5, -1.0, 0.0]
    assert header.floats("token_embd.weight") == list(map(float, range(96)))
    assert header.strings("absent") == []
    assert header.numbers("absent") == []


def test_the_table_of_types_is_ggmls() -> None:
    sizes = gguf.GGML_QUANT_SIZES
    for number, kind in SERVED_TYPES.items():
        theirs = gguf.GGMLQuantizationType(number)
        assert (kind.name, kind.block_size, kind.block_bytes) == (theirs.name, *sizes[theirs])
    for number, name in OTHER_TYPE_NAMES.items():
        assert gguf.GGMLQuantizationType(number).name == name


def test_every_cut_is_noticed(gguf_file: Path) -> None:
    whole = gguf_file.read_bytes()
    for size in range(0, len(whole) - gguf.GGUF_DEFAULT_ALIGNMENT, 7):
        gguf_file.write_bytes(whole[:size])
        assert "cut short" in refused(gguf_file).what or size < 4


def test_no_gguf_file(gguf_file: Path) -> None:
    gguf_file.write_bytes(b"PK\x03\x04" + gguf_file.read_bytes()[4:])
    assert r"b'PK\x03\x04'" in refused(gguf_file).what


@pytest.mark.parametrize(("version", "shown"), [(1, "1"), (99, "99"), (3 << 24, "3 (big-endian)")])
def test_other_versions(gguf_file: Path, version: int, shown: str) -> None:
    gguf_file.write_bytes(b"GGUF" + struct.pack("<I", version) + gguf_file.read_bytes()[8:])
    assert refused(gguf_file).what.endswith(f"version {shown}")


@pytest.mark.parametrize(("number", "name"), [(16, "IQ2_XXS"), (39, "MXFP4"), (777, "number 777")])
def test_a_type_that_is_not_served(gguf_file: Path, number: int, name: str) -> None:
    data = gguf_file.read_bytes()
    entry = b"blk.0.attn_q.weight" + struct.pack("<IQQ", 2, 64, 2)
    gguf_file.write_bytes(data.replace(entry + struct.pack("<I", 8), entry + struct.pack("<I", number)))
    error = refused(gguf_file)
    assert "'blk.0.attn_q.weight'" in error.what
    assert name in error.what
    assert "Q4_K" in error.rule


def test_rows_that_are_no_whole_blocks(gguf_file: Path) -> None:
    data = gguf_file.read_bytes()
    name = b"blk.0.attn_q.weight"
    gguf_file.write_bytes(data.replace(name + struct.pack("<IQ", 2, 64), name + struct.pack("<IQ", 2, 63)))
    assert "rows of 63" in refused(gguf_file).what


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_header_gives_a_header_or_one_error(gguf_file: Path, data: st.DataObject) -> None:
    damaged = bytearray(gguf_file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(4, 420))] = data.draw(st.sampled_from([0, 1, 8, 9, 127, 128, 255]))
    path = gguf_file.with_name("damaged.gguf")
    path.write_bytes(damaged)
    try:
        read_header(path)
    except HeadraceError as error:
        assert error.fix
