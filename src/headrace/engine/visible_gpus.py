"""Which GPUs torch can use here, and why it cannot use one that is here."""

from dataclasses import dataclass
from pathlib import Path

import torch

from headrace.core.errors import HeadraceError


@dataclass(frozen=True, slots=True)
class VisibleGpus:
    """`count` is of those that torch can use; `present` of those that NVIDIA's driver shows in /dev.

    `cuda` is the version that torch was built for, None without; `failure` what torch says of its start, if it fails.
    """

    count: int
    present: int
    cuda: str | None
    failure: str = ""

    @property
    def unusable(self) -> str | None:
        """Why torch uses none of the GPUs that are here, and what helps; None if it does, or none is."""
        if self.count or not self.present:
            return None
        if self.cuda is None:
            return f"torch {torch.__version__} was built without CUDA; install a build with it (pytorch.org)"
        reason = self.failure.rstrip(".") or "it does not say why"
        return f"torch, built for CUDA {self.cuda}, fails: {reason}; update NVIDIA's driver, or install an older torch"


def visible_gpus() -> VisibleGpus:
    """Look. This makes no CUDA context, unless there is a GPU that torch does not count."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    present = len(list(Path("/dev").glob("nvidia[0-9]*")))
    failure = _failure() if present and not count and torch.version.cuda else ""
    return VisibleGpus(count, present, torch.version.cuda, failure)


def resolve_device(name: str, gpus: VisibleGpus | None = None) -> torch.device:
    """The device of a name; "auto" is the first GPU or the CPU. Raises `HeadraceError` for one that is not here."""
    gpus = gpus or visible_gpus()
    if name == "auto":
        return torch.device("cuda" if gpus.count else "cpu")
    kind, _, index = name.partition(":")
    if kind == "cuda" and int(index if index.isdigit() else 0) >= gpus.count:
        raise _not_here(name, gpus)
    return torch.device(name)


def one_of_several(device: torch.device, count: int) -> list[tuple[str, str]]:
    """A report's line where an engine on one GPU leaves others alone; none where there is no other."""
    if device.type != "cuda" or count < 2:
        return []
    used = device.index or 0
    other = 0 if used else 1
    return [("GPU", f"cuda:{used} alone, of {count}; another model can run beside it with --device cuda:{other}")]


def _failure() -> str:
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).partition("\n")[0]
    return ""


def _not_here(name: str, gpus: VisibleGpus) -> HeadraceError:
    rule, fix = f"torch sees {gpus.count} CUDA GPUs here", "Use device='auto' or device='cpu'"
    if gpus.count:
        rule += f", cuda:0 to cuda:{gpus.count - 1}"
    elif gpus.unusable:
        rule += f", though there is one: {gpus.unusable}"
    elif gpus.cuda is None:
        rule += f": torch {torch.__version__} was built without CUDA"
        fix += "; for an NVIDIA GPU install a build of torch with CUDA (pytorch.org, Get Started)"
    return HeadraceError(f"device is {name!r}", rule=rule, fix=fix, param="device")
