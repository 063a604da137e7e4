"""What estimators of memory say for the same ten models, beside `headrace plan` and the truth.

The truth is transformers': it builds each model on the meta device and lets it prefill one sequence; its parameters and
the tensors in its cache are counted. Nothing here needs a network, but the other estimators must be installed, in an
environment of their own:

python -m venv /tmp/estimators
/tmp/estimators/bin/pip install accelerate transformers torch hf-mem llm-resource-planner vllm-wizard
python benchmarks/estimators.py --python /tmp/estimators/bin/python
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from estimators_hub import Repository, safetensors_header, serving
from headrace.planner.catalogue import find_known
from headrace.planner.facts import facts_from_config
from headrace.planner.formats import float_scheme
from headrace.planner.memory import GIB, ideal_kv_bytes

TOKENS = 4096
TOOLS = ("accelerate", "hf-mem", "llm-resource-planner", "vllm-wizard")
MODELS = (
    "Qwen/Qwen2.5-0.5B",
    "Qwen/Qwen3-0.6B",
    "google/gemma-3-1b-it",
    "meta-llama/Llama-2-7b-hf",
    "Qwen/Qwen2.5-7B",
    "meta-llama/Llama-3.1-8B",
    "mistralai/Mixtral-8x7B-v0.1",
    "meta-llama/Llama-3.1-70B",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "deepseek-ai/DeepSeek-V3",
)
_BYTES = 2


@dataclass(frozen=True)
class Said:
    """Bytes of 16-bit weights, and of the KV cache of one sequence; None where nothing was said. `error` says why."""

    weights: float | None = None
    kv: float | None = None
    error: str = ""


def config_of(name: str) -> dict[str, object]:
    """The catalogue's configuration, without a quantized checkpoint's own format: all are asked about 16 bits."""
    known = find_known(name)
    if known is None:
        raise SystemExit(f"{name} is not in the catalogue")
    return {key: value for key, value in known.config.items() if key != "quantization_config"}


def build(name: str) -> torch.nn.Module:
    """transformers' model on the meta device."""
    config = transformers.AutoConfig.for_model(**config_of(name))
    with torch.device("meta"):
        model: torch.nn.Module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return model


def truth(model: torch.nn.Module) -> Said:
    """Its parameters, and what its cache holds after one prefill."""
    tokens = torch.zeros(1, TOKENS, dtype=torch.long, device="meta")
    with torch.no_grad():
        cache = model(input_ids=tokens, use_cache=True, logits_to_keep=1).past_key_values
    kept = {id(each): each for each in _tensors(vars(cache)) if each.is_floating_point()}
    weights = sum(each.numel() for each in model.parameters()) * _BYTES
    return Said(weights, sum(each.numel() * each.element_size() for each in kept.values()))


def _tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif type(value).__module__ == "transformers.cache_utils":
        yield from _tensors(vars(value))


def ours(name: str, config: Mapping[str, object]) -> Said:
    """What `headrace plan` counts with."""
    facts = facts_from_config(name, config, "config.json")
    weights, _ = facts.weight_bytes(float_scheme("bfloat16"), "bfloat16")
    return Said(weights, ideal_kv_bytes(facts.outline, TOKENS, _BYTES))


def files_of(model: torch.nn.Module) -> dict[str, bytes]:
    """What a hub would have of it: config.json as transformers writes it, and the header of its weights."""
    model.config.architectures = [type(model).__name__]
    shapes = {name: tuple(each.shape) for name, each in model.named_parameters()}
    config = json.loads(model.config.to_json_string(use_diff=False))
    return {
        "config.json": json.dumps({key: value for key, value in config.items() if value is not None}).encode(),
        "model.safetensors": safetensors_header(shapes, "BF16", _BYTES),
    }


def others(python: str, files: Mapping[str, Repository]) -> dict[tuple[str, str], Said]:
    """(tool, model) -> what it said, asked from a hub that has these."""
    said = {}
    with tempfile.TemporaryDirectory() as folder, serving(files) as hub:
        for name in files:
            (Path(folder) / name).mkdir(parents=True)
            (Path(folder) / name / "config.json").write_bytes(files[name]["config.json"])
        for tool in TOOLS:
            for line in _ask(python, tool, hub, folder, list(files)):
                answer = json.loads(line)
                said[tool, answer["model"]] = Said(answer.get("weights"), answer.get("kv"), answer.get("error", ""))
    return said


def _ask(python: str, tool: str, hub: str, folder: str, models: list[str]) -> list[str]:
    script = Path(__file__).with_name("estimators_ask.py")
    command = [python, str(script), tool, hub, folder, str(TOKENS), *models]
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": f"{folder}/cache", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        print(f"{tool}: {done.stderr[-1000:]}", file=sys.stderr)
    return done.stdout.splitlines()


def table(title: str, part: str, rows: Mapping[str, Mapping[str, Said]]) -> Iterator[str]:
    """A Markdown table of `part` ("weights" or "kv"): the truth in GiB, and each estimator's share of it."""
    names = [*next(iter(rows.values()))]
    yield f"| {title} | {' | '.join(names)} |"
    yield f"|---|{'---:|' * len(names)}"
    for model, said in rows.items():
        right = getattr(said[names[0]], part)
        cells = [f"{right / GIB:.3f}"]
        for name in names[1:]:
            value = getattr(said[name], part)
            cells.append("-" if value is None else _beside(value, right))
        yield f"| {model} | {' | '.join(cells)} |"


def _beside(value: float, right: float) -> str:
    share = value / right
    return "exact" if share == 1 else f"{share:.1f} times" if share >= 2 else f"{share - 1:+.1%}"


def main() -> None:
    """Print both tables, and what could not be asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="the interpreter that has the estimators")
    python = parser.parse_args().python
    truths, files = {}, {}
    for name in MODELS:
        model = build(name)
        truths[name], files[name] = truth(model), files_of(model)
        del model
    said = others(python, files)
    rows = {
        name: {
            "truth, GiB": truths[name],
            "headrace plan": ours(name, json.loads(files[name]["config.json"])),
            **{tool: said.get((tool, name), Said()) for tool in TOOLS},
        }
        for name in MODELS
    }
    print(*table("weights, 16 bits", "weights", rows), "", sep="\n")
    print(*table(f"KV cache, 1 x {TOKENS:,} tokens", "kv", rows), "", sep="\n")
    for (tool, name), answer in said.items():
        if answer.error:
            print(f"{tool}, {name}: {answer.error}")


if __name__ == "__main__":
    main()
