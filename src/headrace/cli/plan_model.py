"""The model that `headrace plan` is asked about: a path, a known name, or a hub id - never its weights."""

import difflib
from pathlib import Path

from headrace.core.config import EMBEDDED_MODEL
from headrace.core.errors import ErrorKind, HeadraceError
from headrace.core.gguf_header import read_header
from headrace.planner.catalogue import find_known, known_names
from headrace.planner.facts import ModelFacts, facts_from_config, facts_from_gguf, facts_of_known, with_stored
from headrace.planner.stored import stored_in_safetensors
from headrace.store import embedded
from headrace.store.local import find_weights, read_config, read_json


def find_facts(model: str, *, revision: str | None = None) -> ModelFacts:
    """What is known of `model` without downloading it.

    It is a directory, a config.json, a .gguf file, a model of the built-in catalogue (unless `revision` is given) or a
    hub id. Raises `HeadraceError` if it is none, or cannot be reached.
    """
    path = Path(model).expanduser()
    if not path.exists() and model.startswith((".", "/", "~")):
        fix = "Name a directory, a config.json, a .gguf file or a hub id"
        raise HeadraceError(
            f"There is no file or directory {model!r}", fix=fix, param="model", kind=ErrorKind.NOT_FOUND
        )
    if path.exists():
        return _local(model, path)
    if model == EMBEDDED_MODEL and embedded.cached_path().exists():
        return facts_from_gguf(model, read_header(embedded.cached_path()))
    known = find_known(model)
    if known is not None and revision is None:
        return facts_of_known(known, model)
    if model.count("/") != 1 or path.suffix in (".json", ".gguf"):
        raise _not_found(model)
    from headrace.cli.plan_hub import facts_from_hub

    return facts_from_hub(model, revision)


def _local(name: str, path: Path) -> ModelFacts:
    if path.suffix == ".gguf":
        return facts_from_gguf(name, read_header(path))
    if path.is_file():
        return facts_from_config(name, read_json(path), str(path))
    ggufs = sorted(path.glob("*.gguf"))
    if len(ggufs) == 1 and not (path / "config.json").exists():
        return facts_from_gguf(name, read_header(ggufs[0]))
    facts = facts_from_config(name, read_config(name, path), str(path / "config.json"))
    if not any(path.glob("*.safetensors")):
        return facts
    files = find_weights(name, path)
    return with_stored(facts, stored_in_safetensors(files), f"the headers of {len(files)} safetensors files")


def _not_found(model: str) -> HeadraceError:
    close = difflib.get_close_matches(model, known_names(), n=3, cutoff=0.5)
    return HeadraceError(
        f"There is no file or directory {model!r}, and it is not in the built-in catalogue",
        rule="A hub id reads organisation/name",
        fix=f"Did you mean {' or '.join(close)}?" if close else "Name a directory, a config.json or a hub id",
        param="model",
        kind=ErrorKind.NOT_FOUND,
    )
