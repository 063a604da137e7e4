"""A model on this machine's disk: what a directory or a file holds, checked before anything is loaded."""

import json
from dataclasses import replace
from pathlib import Path

from headrace.core.errors import HeadraceError
from headrace.core.gguf_header import read_header
from headrace.store.files import ModelFiles
from headrace.store.quantized import refuse_quantized
from headrace.store.safetensors_file import check_whole

INDEX = "model.safetensors.index.json"

_SINGLE = "model.safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_SECOND_COPY = "consolidated"  # Mistral repositories hold the same weights again under this name, in another layout


def open_path(name: str, path: Path) -> ModelFiles:
    """The model at an existing path. Raises `HeadraceError` for one that is incomplete or not served."""
    if path.is_dir():
        return open_directory(name, path)
    if path.suffix == ".gguf":
        return open_gguf(name, path)
    if is_pickle(path.name):
        raise pickle_error(name, [path.name])
    raise HeadraceError(
        f"{path} is a single file",
        rule="A model is a directory with config.json and safetensors files, or one .gguf file",
        fix="Name the directory that holds the file" if path.suffix == ".safetensors" else "Name one of these",
        param="model",
    )


def open_directory(name: str, path: Path) -> ModelFiles:
    """The model in a directory: Hugging Face's layout, or one .gguf file."""
    ggufs = sorted(path.glob("*.gguf"))
    if ggufs and not _has_safetensors(path):
        if len(ggufs) > 1:
            raise _several_ggufs(name, path, ggufs)
        return open_gguf(name, ggufs[0])
    model = open_weightless(name, path)
    weights = find_weights(name, path)
    for file in weights:
        check_whole(file)
    return replace(model, kind="safetensors", weight_files=weights)


def open_weightless(name: str, path: Path) -> ModelFiles:
    """The model that a directory's config.json describes, for weights that are made up. Raises `HeadraceError`."""
    config = read_config(name, path)
    refuse_quantized(config, name)
    generation = path / "generation_config.json"
    return ModelFiles(name, path, "dummy", (), config, read_json(generation) if generation.exists() else {})


def open_gguf(name: str, path: Path) -> ModelFiles:
    """The model in a .gguf file, its header read and checked."""
    header = read_header(path)
    num_parts = header.scalars.get("split.count", 1)
    if isinstance(num_parts, int) and num_parts > 1:
        raise split_error(str(path))
    return ModelFiles(name, path, "gguf", (path,), header=header)


def read_config(name: str, path: Path) -> dict[str, object]:
    """The parsed config.json of a model's directory. Raises `HeadraceError` if there is none."""
    config = path / "config.json"
    if config.exists():
        return read_json(config)
    what, fix = f"{name} has no config.json", "Name the directory that from_pretrained() of transformers would take"
    if (path / "adapter_config.json").exists():
        what, fix = f"{name} is an adapter, not a model", "Merge it into its model with peft's merge_and_unload()"
    raise HeadraceError(
        what,
        rule="A model's directory holds config.json and safetensors files, or one .gguf file",
        fix=fix,
        param="model",
    )


def read_json(path: Path) -> dict[str, object]:
    """The object in a JSON file. Raises `HeadraceError` if it holds none."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise HeadraceError(f"{path} does not hold a JSON object", fix="Download the file again", param="model")
    return value


def find_weights(name: str, path: Path) -> tuple[Path, ...]:
    """The safetensors files of a directory: those of the index if there is one. Raises if any is missing."""
    if (path / INDEX).exists():
        return _indexed(name, path)
    if (path / _SINGLE).exists():
        return (path / _SINGLE,)
    others = tuple(sorted(file for file in path.glob("*.safetensors") if not file.name.startswith(_SECOND_COPY)))
    if others:
        return others
    pickles = sorted(file.name for file in path.iterdir() if is_pickle(file.name))
    if pickles:
        raise pickle_error(name, pickles)
    raise HeadraceError(
        f"{name} has no weights",
        rule="A model's directory holds model.safetensors, or its shards and their index",
        fix="Download the whole model, or name another directory",
        param="model",
    )


def is_pickle(file_name: str) -> bool:
    """Whether a file of this name holds pickled weights. training_args.bin and the like are none."""
    return file_name.endswith(_PICKLES) and not file_name.startswith(("training_args", "optimizer", "scheduler"))


def pickle_error(name: str, files: list[str]) -> HeadraceError:
    """The refusal of a model whose weights are pickled."""
    return HeadraceError(
        f"{name} has its weights in {listed(files)} only",
        rule="Pickles can run code when they are read, so only safetensors and GGUF are",
        fix="Convert it where you trust it: AutoModelForCausalLM.from_pretrained(...)"
        ".save_pretrained(..., safe_serialization=True)",
        param="model",
    )


def _has_safetensors(path: Path) -> bool:
    return (path / INDEX).exists() or any(path.glob("*.safetensors"))


def _indexed(name: str, path: Path) -> tuple[Path, ...]:
    weight_map = read_json(path / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise HeadraceError(f"{path / INDEX} has no weight_map", fix="Download the file again", param="model")
    names = sorted({str(file) for file in weight_map.values()})
    foreign = [file for file in names if Path(file).name != file]
    if foreign:
        raise HeadraceError(
            f"{path / INDEX} names {foreign[0]!r}",
            rule="The files of an index lie beside it",
            fix="Download the model again from a source you trust",
            param="model",
        )
    missing = [file for file in names if not (path / file).exists()]
    if missing:
        raise HeadraceError(
            f"{name} lacks {listed(missing)}",
            rule=f"{INDEX} names {len(names)} files, and all are needed",
            fix="Download the missing files",
            param="model",
        )
    return tuple(path / file for file in names)


def _several_ggufs(name: str, path: Path, files: list[Path]) -> HeadraceError:
    return HeadraceError(
        f"{name} holds {len(files)} GGUF files: {listed([file.name for file in files])}",
        rule="One file is served",
        fix=f"Name one, for example {path / files[0].name}",
        param="model",
    )


def split_error(name: str) -> HeadraceError:
    """The refusal of a GGUF file that holds one part of a model."""
    return HeadraceError(
        f"{name} is one part of a split model",
        rule="A GGUF model is served from one file",
        fix="Use a smaller quantization, or join the parts with llama.cpp's `llama-gguf-split --merge`",
        param="model",
    )


def listed(names: list[str], most: int = 8) -> str:
    """Names for a message: the first few, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
