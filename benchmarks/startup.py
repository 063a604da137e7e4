"""Process start to first token, by phase: `python benchmarks/startup.py [--model NAME | --folder DIRECTORY]`.

Each start is a process of its own: one without any compiled kernels (an empty TRITON_CACHE_DIR), then `--repeats` that
find what it left. "base" is what any program has that uses torch on the device: the interpreter, `import torch` and
the first use of CUDA. "beyond" is all else up to the first token, and what the engine says of its own phases is below
it. Weights are made up for a NAME of `gpu_models`, and the checkpoint's own for a DIRECTORY. The "graphs" phase
contains the compiling of kernels.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gpu_models import MODELS, TINY, make_folder

_THIS = Path(__file__).resolve()
_PROMPT = tuple(range(1, 9))
_CHILD = "--child"


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds of one start; `phases` is what the engine says of its constructor."""

    base: float
    imports: float
    constructor: float
    first_token: float
    phases: Mapping[str, float]

    @property
    def beyond(self) -> float:
        """From the base to the first token."""
        return self.imports + self.constructor + self.first_token


def main() -> None:
    """Start cold once and warm several times; a table, and JSON where it is wanted."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as parent:
        folder = arguments.folder or make_folder(TINY if arguments.tiny else arguments.model, Path(parent))
        options = {"load_format": "auto" if arguments.folder else "dummy", "max_model_len": arguments.max_model_len}
        if arguments.tiny:
            options |= {"device": "cpu"}
        cache = Path(parent) / "kernels"
        starts = {"cold": start(folder, options, cache)}
        starts |= {f"warm {number}": start(folder, options, cache) for number in range(1, arguments.repeats + 1)}
    print(table(starts))
    if arguments.json:
        found = {name: asdict(each) | {"beyond": each.beyond} for name, each in starts.items()}
        arguments.json.write_text(json.dumps({"model": folder.name, "starts": found}, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--folder", type=Path, help="a directory with a checkpoint, in place of made-up weights")
    parser.add_argument("--max-model-len", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=2, help="starts with warm caches")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU, to see that this program works")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def start(folder: Path, options: Mapping[str, object], cache: Path) -> Start:
    """One process from its start to its first token."""
    source = os.pathsep.join([str(_THIS.parent.parent / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": source, "TRITON_CACHE_DIR": str(cache)}
    command = [sys.executable, str(_THIS), _CHILD, str(folder), json.dumps(options), str(time.time())]
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return Start(**json.loads(run.stdout.splitlines()[-1]))


def table(starts: Mapping[str, Start]) -> str:
    """Seconds, a column for each start."""
    parts = ("base", "imports", "constructor", "first_token", "beyond")
    rows = [[part, *(f"{getattr(each, part):.2f}" for each in starts.values())] for part in parts]
    phases = dict.fromkeys(phase for each in starts.values() for phase in each.phases)
    rows += [[f"engine: {name}", *(f"{each.phases.get(name, 0):.2f}" for each in starts.values())] for name in phases]
    return "\n".join(_line(row) for row in [["seconds", *starts], ["---"] * (1 + len(starts)), *rows])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def child(folder: str, options: Mapping[str, object], begun: float) -> None:
    """Be the process that is measured; `begun` is when it was asked for, as `time.time` has it."""
    import torch

    if torch.cuda.is_available():
        torch.zeros(1, device="cuda").item()
    based = time.time()
    from headrace import LLM, SamplingParams

    imported = time.time()
    llm = LLM(folder, skip_tokenizer_init=True, **options)
    built = time.time()
    llm.generate({"prompt_token_ids": [*_PROMPT]}, SamplingParams(max_tokens=1, detokenize=False), use_tqdm=False)
    answered = time.time()
    phases = llm._loaded.ready().startup_seconds
    print(json.dumps(asdict(Start(based - begun, imported - based, built - imported, answered - built, phases))))
    llm.close()


if __name__ == "__main__":
    if sys.argv[1:2] == [_CHILD]:
        child(sys.argv[2], json.loads(sys.argv[3]), float(sys.argv[4]))
    else:
        main()
