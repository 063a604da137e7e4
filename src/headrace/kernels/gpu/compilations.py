"""Counts the kernels that Triton compiles, or loads from its cache, at their first use with new argument types."""

from typing import Any

from triton import knobs


class CompilationCounter:
    """`count` grows from now until `close`. Whatever hook was there before is called as well."""

    def __init__(self) -> None:
        self.count = 0
        self._earlier: Any = knobs.runtime.jit_post_compile_hook
        knobs.runtime.jit_post_compile_hook = self._note

    def close(self) -> None:
        """Put the earlier hook back, unless somebody has put another one since."""
        if knobs.runtime.jit_post_compile_hook == self._note:
            knobs.runtime.jit_post_compile_hook = self._earlier

    def _note(self, *arguments: object, **named: object) -> Any:
        self.count += 1
        return None if self._earlier is None else self._earlier(*arguments, **named)
