"""From what the user called the model to its checked files: a path, a hub id, or the embedded model's name."""

import re
from dataclasses import replace
from pathlib import Path

from headrace.core.config import EMBEDDED_MODEL, LoadFormat
from headrace.core.errors import ErrorKind, HeadraceError
from headrace.store import embedded
from headrace.store.files import ModelFiles, WeightKind
from headrace.store.hub import CheckConfig, Hub
from headrace.store.local import open_gguf, open_path, open_weightless

_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<file>.+))?")
_PATH_STARTS = ("/", "./", "../", "~")
_FILE_ENDS = (".gguf", ".safetensors", ".bin", ".pt", ".pth")


def resolve(
    model: str,
    *,
    revision: str | None = None,
    download_dir: str | None = None,
    token: str | None = None,
    progress: bool = True,
    load_format: LoadFormat = "auto",
    check_config: CheckConfig | None = None,
) -> ModelFiles:
    """Find a model and check that its files are whole and of a kind that is served, without reading any weight.

    `model` is a directory in Hugging Face's layout, a .gguf file (or a directory with one), a hub id "org/name", one
    file of it "org/name:file.gguf", or `EMBEDDED_MODEL`; a path that exists is preferred to a hub id. `revision`,
    `download_dir` (the hub cache), `token` and `progress` concern the hub only. `load_format` is the kind of file that
    is wanted; "dummy" looks for a config.json alone. `check_config` is called with the parsed config.json before
    weights are downloaded, and may raise. Raises `HeadraceError`.
    """
    hub = Hub(revision, download_dir, token, progress)
    files = _find(model, hub, check_config, with_weights=load_format != "dummy")
    if load_format not in ("auto", files.kind):
        raise _other_format(model, load_format, files.kind)
    return files


def _find(model: str, hub: Hub, check_config: CheckConfig | None, *, with_weights: bool) -> ModelFiles:
    if model == EMBEDDED_MODEL:
        return replace(open_gguf(model, embedded.fetch()), generation_config=embedded.GENERATION_CONFIG)
    path = _existing(model)
    if path is not None:
        files = open_path(model, path) if with_weights or not path.is_dir() else open_weightless(model, path)
        if check_config is not None and files.config is not None:
            check_config(files.config)
        return files
    match = _HUB_ID.fullmatch(model)
    if match is None or model.startswith(_PATH_STARTS) or (match["file"] is None and model.endswith(_FILE_ENDS)):
        raise _not_found(model)
    if match["file"] is None:
        return hub.open_model(model, check_config) if with_weights else hub.open_weightless(model, check_config)
    if not match["file"].endswith(".gguf"):
        raise _no_gguf(match["repo"], match["file"])
    return hub.open_gguf(model, match["repo"], match["file"])


def _other_format(model: str, wanted: LoadFormat, found: WeightKind) -> HeadraceError:
    fix = "Leave load_format out"
    if wanted == "dummy":
        fix = "Name a directory with a config.json; its weights are then made up"
    return HeadraceError(
        f"load_format is {wanted!r}", rule=f"The weights of {model} are {found}", fix=fix, param="load_format"
    )


def _existing(model: str) -> Path | None:
    try:
        path = Path(model).expanduser()
    except RuntimeError:  # ~somebody, who has no home here
        return None
    return path if model and path.exists() else None


def _not_found(model: str) -> HeadraceError:
    looks_like_path = "/" in model or "\\" in model or model.endswith(_FILE_ENDS)
    fix = f"Check the path; relative ones start at {Path.cwd()}"
    if not looks_like_path:
        fix = f"Name a directory, a .gguf file, a hub id such as Qwen/Qwen3-0.6B, or {EMBEDDED_MODEL}"
    return HeadraceError(
        f"There is no file or directory {model!r}",
        rule="" if looks_like_path else "A hub id reads organisation/name",
        fix=fix,
        param="model",
        kind=ErrorKind.NOT_FOUND,
    )


def _no_gguf(repo: str, file: str) -> HeadraceError:
    return HeadraceError(
        f"{repo}:{file} does not name a .gguf file",
        rule="After the colon comes the whole name of a GGUF file in the repository",
        fix=f"Name one, such as {repo}:model-Q4_K_M.gguf, or leave out the colon for a safetensors model",
        param="model",
    )
