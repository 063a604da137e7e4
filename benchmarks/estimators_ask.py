"""Asks one estimator of memory about models, in the environment that has it: one JSON object a model, on stdout.

python estimators_ask.py TOOL HUB FOLDER TOKENS MODEL ...

HUB is the address of a hub, FOLDER has ORGANISATION/MODEL/config.json. An object has `weights` and `kv` in bytes, for
16-bit weights and one sequence of TOKENS tokens, each where the estimator has it, or `error`.
"""

import asyncio
import json
import os
import sys
from argparse import Namespace
from pathlib import Path

GIB = 2**30
Answer = dict[str, float]


def ask_accelerate(model: str, folder: Path, tokens: int) -> Answer:
    """`accelerate estimate-memory MODEL --dtypes float16`."""
    from accelerate.commands.estimate import gather_data

    arguments = Namespace(model_name=model, library_name="transformers", trust_remote_code=False, dtypes=["float16"])
    ((_, _, total, _),) = gather_data(arguments)
    return {"weights": total}


def ask_hf_mem(model: str, folder: Path, tokens: int) -> Answer:
    """`hf-mem --model-id MODEL --experimental --max-model-len TOKENS`, sent to our hub: its own address is fixed."""
    import httpx2
    from hf_mem.run import arun

    hub, get = os.environ["HF_ENDPOINT"], httpx2.AsyncClient.get

    async def get_here(self: httpx2.AsyncClient, url: str, **arguments: object) -> httpx2.Response:
        return await get(self, url.replace("https://huggingface.co", hub), **arguments)

    httpx2.AsyncClient.get = get_here
    try:
        found = asyncio.run(arun(model, experimental=True, max_model_len=tokens))
    finally:
        httpx2.AsyncClient.get = get
    return {"weights": found.memory, "kv": found.kv_cache}


def ask_llm_resource_planner(model: str, folder: Path, tokens: int) -> Answer:
    """`llm-resource-planner MODEL`, which knows 4,096 tokens only; its KV cache is taken before its factor of 1.2."""
    from llm_resource_planner.cli import calculate_params, estimate_memory, get_model_config

    parameters, layers, hidden = calculate_params(get_model_config(model))
    weights, cache, _ = estimate_memory(parameters, hidden, layers)
    return {"weights": weights * GIB, **({"kv": cache * GIB} if tokens == 4096 else {})}


def ask_vllm_wizard(model: str, folder: Path, tokens: int) -> Answer:
    """`vllm-wizard plan --model FOLDER/MODEL --max-model-len TOKENS --concurrency 1 --vram-gb 80 --json`."""
    from vllm_wizard.planning.planner import run_plan
    from vllm_wizard.schemas.inputs import HardwareInput, ModelInput, PlanRequest, PolicyInput, WorkloadInput

    request = PlanRequest(
        model=ModelInput(model=str(folder / model), max_model_len=tokens),
        hardware=HardwareInput(gpu="A100 80GB", gpus=1, vram_gb=80),
        workload=WorkloadInput(concurrency=1),
        policy=PolicyInput(),
    )
    found = run_plan(request).feasibility
    return {"weights": found.weights_gb * GIB, "kv": found.kv_cache_gb * GIB}


ASKS = {
    "accelerate": ask_accelerate,
    "hf-mem": ask_hf_mem,
    "llm-resource-planner": ask_llm_resource_planner,
    "vllm-wizard": ask_vllm_wizard,
}


def main() -> None:
    """Ask about each model; what a tool prints itself goes to stderr."""
    tool, hub, folder, tokens, *models = sys.argv[1:]
    os.environ["HF_ENDPOINT"] = hub
    answers, sys.stdout = sys.stdout, sys.stderr
    for model in models:
        try:
            answer: dict[str, object] = {**ASKS[tool](model, Path(folder), int(tokens))}
        except Exception as error:  # whatever a tool cannot do is its answer
            answer = {"error": f"{type(error).__name__}: {error}"[:200]}
        print(json.dumps({"tool": tool, "model": model, **answer}), file=answers, flush=True)


if __name__ == "__main__":
    main()
