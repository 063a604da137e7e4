"""The operations on a CUDA GPU as Triton kernels, from sm_75 (T4) up: one kernel a file, launched by `TritonOps`.

Nothing in a kernel assumes bfloat16 or reads a length on the host: grids depend on the shapes of a step alone, so that
every launch can be captured in a CUDA graph. The package needs `triton`, which comes with torch where there is a GPU;
import it through `headrace.kernels.select`.
"""
