"""The progress bar of `LLM.generate`: requests done, and tokens a second read and written."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from headrace.text.stream import RequestStream


class GenerationProgress:
    """A bar on standard error while it is entered; silent where there is no terminal or it is not `enabled`."""

    def __init__(self, total: int, *, enabled: bool) -> None:
        columns = (
            TextColumn("Processed prompts"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        console = Console(stderr=True)
        shown = enabled and (console.is_terminal or console.is_jupyter)
        self._bar = Progress(*columns, disable=not shown, console=console)
        self._task: TaskID = self._bar.add_task("", total=total, rate="")
        self._started = time.monotonic()
        self._read = self._written = 0

    def __enter__(self) -> "GenerationProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, stream: RequestStream) -> None:
        """Note a stream that has got a token; it counts once it is finished."""
        if not stream.finished:
            return
        seconds = max(time.monotonic() - self._started, 1e-9)
        self._read += stream.num_prompt_tokens
        self._written += stream.num_output_tokens
        rate = f"in {self._read / seconds:,.0f} tok/s, out {self._written / seconds:,.0f} tok/s"
        self._bar.update(self._task, advance=1, rate=rate)
