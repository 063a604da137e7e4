"""The CPU's compiled kernels: C that ships as source and is built once, by the compiler of the machine it runs on.

`start_build` begins that in the background; its result is a `KernelLibrary`, from which `NativeOps` is made, or raises
`KernelsUnavailable`, whose text is the line for the start-up report.
"""

from headrace.kernels.cpu_native.build import KernelsUnavailable, start_build
from headrace.kernels.cpu_native.library import KernelLibrary
from headrace.kernels.cpu_native.ops import NativeOps

__all__ = ["KernelLibrary", "KernelsUnavailable", "NativeOps", "start_build"]
