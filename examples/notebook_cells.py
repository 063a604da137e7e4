"""Cells that people paste into a first notebook, one after the other."""

# What circulates for vLLM's crashes in notebooks. Here nothing needs it, and nothing minds; only CUDA_LAUNCH_BLOCKING,
# which makes the host wait for every kernel, draws a warning where there is a GPU.
import os

os.environ["CUDA_VISIBLE_DEVICES"] = "0"
os.environ["VLLM_USE_V1"] = "0"
os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
os.environ["CUDA_LAUNCH_BLOCKING"] = "1"

# The arguments that people turn first.
from headrace import LLM, SamplingParams

params = SamplingParams(temperature=0, max_tokens=8)
llm = LLM(max_model_len=2048, gpu_memory_utilization=0.7, enforce_eager=True)
print(llm.generate("The capital of France is", params)[0].outputs[0].text)

# Give it back, and start another one in the same process.
import gc  # noqa: E402

import torch  # noqa: E402

del llm
gc.collect()
torch.cuda.empty_cache()
llm = LLM(quantization="int8", max_model_len=1024)
print(llm.generate("The capital of France is", params)[0].outputs[0].text)

# The sure way, which works also where something else still refers to it.
llm.close()
