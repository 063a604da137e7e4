"""A model on the hub, before it is downloaded: its config.json, and the headers of its weights by range requests."""

import difflib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.planner.catalogue import known_names
from headrace.planner.facts import ModelFacts, facts_from_config, with_stored
from headrace.planner.stored import StoredTensor, StoredWeights, summed
from headrace.store.hub_errors import explain
from headrace.store.local import read_json

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_CONFIG = "config.json"
_TIMEOUT_SECONDS = 10
_BY_FORMULA = "The hub cannot be reached: config.json is the cached one, and weights are counted by formula"


def facts_from_hub(repo: str, revision: str | None) -> ModelFacts:
    """What the hub says of `repo`, no weight of which is downloaded.

    Without a network a config.json that is in the hub client's cache will do. Raises `HeadraceError` otherwise.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(endpoint=_endpoint(), token=os.environ.get("HF_TOKEN") or None)
    try:
        api.model_info(repo, revision=revision, timeout=_TIMEOUT_SECONDS)
        config = Path(api.hf_hub_download(repo, _CONFIG, revision=revision))
        stored = _stored(api, repo, revision)
    except (HfHubHTTPError, HFValidationError) as error:
        raise explain(error, repo, revision, _endpoint() or "https://huggingface.co", offline=False) from error
    except Exception as error:  # the transport's classes differ by the client's version
        return _from_cache(repo, revision, error)
    facts = facts_from_config(repo, read_json(config), f"{_CONFIG} of {repo} on the hub")
    return facts if stored is None else with_stored(facts, stored, "the headers of its safetensors files")


def _stored(api: "HfApi", repo: str, revision: str | None) -> StoredWeights | None:
    """The sum over the headers; None where the repository has no safetensors."""
    from huggingface_hub.errors import NotASafetensorsRepoError

    try:
        metadata = api.get_safetensors_metadata(repo, revision=revision)
    except NotASafetensorsRepoError:
        return None
    return summed(
        StoredTensor(name, tensor.dtype, tensor.data_offsets[1] - tensor.data_offsets[0])
        for file in metadata.files_metadata.values()
        for name, tensor in file.tensors.items()
    )


def _from_cache(repo: str, revision: str | None, error: Exception) -> ModelFacts:
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repo, _CONFIG, revision=revision)
    if not isinstance(cached, str):
        raise _unreachable(repo) from error
    facts = facts_from_config(repo, read_json(Path(cached)), f"{_CONFIG} in the hub client's cache")
    return replace(facts, notes=(*facts.notes, _BY_FORMULA))


def _unreachable(repo: str) -> HeadraceError:
    close = difflib.get_close_matches(repo, known_names(), n=3, cutoff=0.5)
    instead = f", or plan for {' or '.join(close)}, built in" if close else ""
    return HeadraceError(
        f"{repo} is not in the built-in catalogue, and {_endpoint() or 'https://huggingface.co'} cannot be reached",
        rule="Of other models the config and the headers of the weights are read from the hub",
        fix=f"Check the connection, or give the path of the model's config.json{instead}",
        param="model",
        kind=ErrorKind.UNAVAILABLE,
    )


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None
