"""Calls that circulate for vLLM, with the name changed: what works, and what is refused with its cure.

MODEL is the embedded model; any directory, GGUF file or hub id will do.
"""

from headrace import LLM, BeamSearchParams, HeadraceError, SamplingParams
from headrace.core.config import EMBEDDED_MODEL as MODEL

# A first generation.
llm = LLM(model=MODEL)
params = SamplingParams(temperature=0.7, max_tokens=200, top_p=0.9)
outputs = llm.generate(["The best way to learn is"], params)
print(outputs[0].outputs[0].text)

# The prompt's blocks are held once, however many beams grow from it.
prompt = "Once upon a time, in a village by a river, there was a mill. " * 60
[beams] = llm.beam_search(prompt, BeamSearchParams(beam_width=4, max_tokens=8))
print(beams.sequences[0].text[-60:])
llm.close()

# Arguments that people pass.
for arguments in ({"max_model_len": 2048}, {"gpu_memory_utilization": 0.7}, {"enforce_eager": True}):
    with LLM(model=MODEL, **arguments) as llm:
        llm.generate("Hello", SamplingParams(max_tokens=2), use_tqdm=False)

# What is not built yet is refused by name, before anything is loaded.
for arguments in (
    {"quantization": "awq"},
    {"quantization": "gptq"},
    {"tensor_parallel_size": 4},
    {"speculative_model": MODEL, "num_speculative_tokens": 5},
    {"speculative_config": {"model": MODEL, "num_speculative_tokens": 5}},
):
    try:
        LLM(model=MODEL, **arguments)
    except HeadraceError as error:
        print(f"{arguments}: {error}")
    else:
        raise SystemExit(f"{arguments} should have been refused")
