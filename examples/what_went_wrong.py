"""Four complaints, and how each is told from the others: by its error or by the report, with the knob that cures it.

There is no `if __name__ == "__main__":` here, and none is needed: `LLM` starts no process.
"""

import re

from headrace import LLM, HeadraceError, SamplingParams

# Out of memory: refused before anything is allocated, with the sum and an argument that works as it stands.
try:
    LLM(kv_cache_memory_bytes=2**50)
except HeadraceError as error:
    print("out of memory:", error)
    assert error.param == "kv_cache_memory_bytes"
    enough = int(re.search(r"kv_cache_memory_bytes=(\d+)", error.fix)[1])
assert enough < 2**50
LLM(kv_cache_memory_bytes=min(enough, 2**28)).close()

# "Engine initialization failed": what failed is what the error says.
try:
    LLM("./no-such-model")
except HeadraceError as error:
    print("initialization:", error)

# A multiprocessing error: there is no second process to fail. An event loop that runs already is no obstacle either.
llm = LLM(max_model_len=1024)

# A slow first request: it is not. What takes time is done before the constructor returns, and the report says where
# it went; on a GPU `num_compilations` counts kernels that had to be built after that, and stays 0.
print("seconds:", dict(llm.report)["Seconds"])
llm.generate("Hello", SamplingParams(max_tokens=4), use_tqdm=False)
assert llm.get_metrics().num_compilations == 0
llm.close()
