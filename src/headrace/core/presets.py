"""Engine arguments that go together, under one name. Each is replaced by an argument that is given."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from headrace.core.errors import HeadraceError


@dataclass(frozen=True, slots=True)
class Preset:
    """Sizes in tokens, counts, shares and bytes.

    `max_model_len` is the most: a model that reaches less, or a device that holds less, gets that. `cpu_cache_bytes` is
    the most that the KV cache takes of a host's memory, as long as one sequence of an asked-for context fits.
    """

    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    cpu_cache_bytes: int

    def completed(self, given: Mapping[str, object]) -> dict[str, object]:
        """The arguments that were given, with this preset's where there are none and the device does not matter."""
        seqs = given.get("max_num_seqs", self.max_num_seqs)
        tokens = max(self.max_num_batched_tokens, seqs if isinstance(seqs, int) else 0)
        own = {"max_num_seqs": seqs, "max_num_batched_tokens": tokens}
        return {**own, "gpu_memory_utilization": self.gpu_memory_utilization, **given}


PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {
        # A T4 of Colab or Kaggle that a trainer, or other tensors, share: 15 GiB, of which 4.5 stay free.
        "notebook": Preset(
            max_model_len=4096,
            max_num_seqs=32,
            max_num_batched_tokens=1024,
            gpu_memory_utilization=0.7,
            cpu_cache_bytes=512 * 2**20,
        ),
    }
)


def preset_named(name: object) -> Preset:
    """The preset of a name. Raises `HeadraceError` for one that there is not."""
    if isinstance(name, str) and name in PRESETS:
        return PRESETS[name]
    raise HeadraceError(
        f"preset is {name!r}",
        rule=f"It must be one of {', '.join(PRESETS)}",
        fix="Leave it out for none",
        param="preset",
    )
