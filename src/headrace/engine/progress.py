"""The progress of `LLM.generate`: requests done, and tokens a second read and written."""

import time

from headrace.engine.progress_bar import ProgressBar
from headrace.text.stream import RequestStream


class GenerationProgress(ProgressBar):
    """A bar over `total` requests; silent where nobody can see it or it is not `enabled`."""

    def __init__(self, total: int, *, enabled: bool) -> None:
        super().__init__("Processed prompts", total, enabled=enabled)
        self._started = time.monotonic()
        self._read = self._written = 0

    def update(self, stream: RequestStream) -> None:
        """Note a stream that has got a token; it counts once it is finished."""
        if not stream.finished:
            return
        seconds = max(time.monotonic() - self._started, 1e-9)
        self._read += stream.num_prompt_tokens
        self._written += stream.num_output_tokens
        self.advance(f"in {self._read / seconds:,.0f} tok/s, out {self._written / seconds:,.0f} tok/s")
