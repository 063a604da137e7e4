"""A model on the Hugging Face hub: fetched once into the hub client's own cache, small files before weights.

What can be refused is refused before weights are downloaded. A complete cache is used without asking for the weights
again, and is enough when there is no network. `huggingface_hub` is imported only here, and only when it is needed.
"""

import glob
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.core.errors import HeadraceError
from headrace.store.files import ModelFiles
from headrace.store.hub_errors import explain
from headrace.store.local import (
    find_weights,
    is_pickle,
    listed,
    open_directory,
    open_gguf,
    open_weightless,
    pickle_error,
    read_config,
    split_error,
)
from headrace.store.quantized import refuse_quantized

CheckConfig = Callable[[Mapping[str, object]], object]
"""Called with the parsed config.json before weights are downloaded; raises to refuse the model."""

_SMALL_FILES = ["*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt"]
_WEIGHT_FILES = ["*.safetensors"]
_IGNORED = ("*/*", "consolidated*")  # other formats in folders, and Mistral's second copy of the weights
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_TRUE = ("1", "true", "yes", "on")


@dataclass(frozen=True, slots=True)
class Hub:
    """How to reach the hub: what the user gave, and `HF_ENDPOINT` and `HF_HUB_OFFLINE` as they are set now."""

    revision: str | None = None
    download_dir: str | None = None
    token: str | None = None
    progress: bool = True

    def open_model(self, name: str, check_config: CheckConfig | None = None) -> ModelFiles:
        """The model in the repository `name`. Raises `HeadraceError` if it cannot be had or is not served."""
        folder = self._checked_config(name, check_config)
        if not _complete(name, folder):
            self._refuse_by_listing(name)
            folder = self._snapshot(name, _WEIGHT_FILES, revision=folder.name)
        return open_directory(name, folder)

    def open_weightless(self, name: str, check_config: CheckConfig | None = None) -> ModelFiles:
        """The model in the repository `name` but for its weights, which are not downloaded."""
        return open_weightless(name, self._checked_config(name, check_config))

    def open_gguf(self, name: str, repo: str, file: str) -> ModelFiles:
        """The model in one .gguf file of a repository."""
        if _PART.search(file):
            raise split_error(name)
        path = self._snapshot(repo, [glob.escape(file)], ignored=[], enough=file) / file
        if not path.exists():
            raise choose_gguf(repo, [f for f in self._list(repo) if f.endswith(".gguf")], missing=file)
        return open_gguf(name, path)

    def _checked_config(self, name: str, check_config: CheckConfig | None) -> Path:
        """The folder of the model's small files, once its config.json has been found good."""
        folder = self._snapshot(name, _SMALL_FILES, quiet=True)
        if not (folder / "config.json").exists():
            self._refuse_by_listing(name)
        config = read_config(name, folder)
        refuse_quantized(config, name)
        if check_config is not None:
            check_config(config)
        return folder

    @property
    def _cache(self) -> Path | None:
        return None if self.download_dir is None else Path(self.download_dir).expanduser()

    def _snapshot(
        self,
        repo: str,
        patterns: list[str],
        *,
        ignored: Sequence[str] = _IGNORED,
        revision: str | None = None,
        quiet: bool = False,
        enough: str | None = None,
    ) -> Path:
        """The folder of a commit in the cache, with the files that match; `enough` names the one that is needed."""
        from huggingface_hub import snapshot_download

        try:
            folder = snapshot_download(
                repo,
                revision=revision or self.revision,
                cache_dir=self._cache,
                token=self.token or None,
                endpoint=_endpoint(),
                local_files_only=_offline(),
                allow_patterns=patterns,
                ignore_patterns=list(ignored),
                tqdm_class=_silent_tqdm() if quiet or not self.progress else None,
            )
        except Exception as error:  # the transport's classes differ by the client's version
            cached = getattr(error, "snapshot_path", None)
            if cached is not None and _complete(repo, Path(cached), enough):
                return Path(cached)
            raise self._explained(error, repo) from error
        return Path(folder)

    def _list(self, repo: str) -> list[str]:
        """The names of a repository's files, of those in folders too."""
        from huggingface_hub import HfApi

        try:
            return HfApi(endpoint=_endpoint(), token=self.token or None).list_repo_files(repo, revision=self.revision)
        except Exception as error:
            raise self._explained(error, repo) from error

    def _refuse_by_listing(self, repo: str) -> None:
        """Raise if the repository's list of files shows that there are no safetensors to download."""
        files = self._list(repo)
        if any(file.endswith(".safetensors") and "/" not in file for file in files):
            return
        if ggufs := [file for file in files if file.endswith(".gguf")]:
            raise choose_gguf(repo, ggufs)
        if pickles := [file for file in files if is_pickle(file) and "/" not in file]:
            raise pickle_error(repo, pickles)

    def _explained(self, error: Exception, repo: str) -> HeadraceError:
        return explain(error, repo, self.revision, _endpoint() or "https://huggingface.co", offline=_offline())


def choose_gguf(repo: str, files: list[str], missing: str | None = None) -> HeadraceError:
    """The error for a repository of GGUF files of which none, or one that does not exist, was named."""
    what = f"{repo} has no file {missing}" if missing else f"{repo} holds GGUF files only"
    if not files:
        return HeadraceError(what, rule="It holds no GGUF file", fix=f"Use {repo}", param="model")
    return HeadraceError(
        what,
        rule=f"It holds {listed(files, most=30)}",
        fix=f"Name one after a colon, for example {repo}:{files[0]}",
        param="model",
    )


def _complete(repo: str, folder: Path, enough: str | None = None) -> bool:
    """Whether the cache holds the config and all weights: the hub client links a file only once it is whole."""
    if enough is not None:
        return (folder / enough).exists()
    if not (folder / "config.json").exists():
        return False
    try:
        find_weights(repo, folder)
    except HeadraceError:
        return False
    return True


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _offline() -> bool:
    return any(os.environ.get(name, "").lower() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def _silent_tqdm() -> type:
    from huggingface_hub.utils.tqdm import tqdm

    class SilentTqdm(tqdm):
        """A progress bar that shows nothing."""

        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]

    return SilentTqdm
