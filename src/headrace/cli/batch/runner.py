"""Runs a batch: reads lines as fast as they are answered, asks many at once, writes the answers in order."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from headrace.cli.batch.answers import AnswerLine, answered, unanswered, unasked
from headrace.cli.batch.asking import Asker
from headrace.cli.batch.lines import BadLine, BatchRequest, LineParser
from headrace.cli.batch.output import OrderedAnswers, OutputFile
from headrace.cli.client.http import AnswerTimeout, HttpClient
from headrace.cli.progress import ProgressLine
from headrace.core.errors import HeadraceError

MAX_HELD_BYTES = 64 * 2**20
"""Finished answers that wait for an earlier one; beyond this, no further request is sent until it is there."""


@dataclass(slots=True)
class BatchCounts:
    """What became of a batch so far."""

    resumed: int = 0
    done: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def add(self, answer: AnswerLine) -> None:
        """Count an answer."""
        self.done += 1
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens
        if answer.failure:
            self.failures[answer.failure] += 1

    @property
    def failed(self) -> int:
        """How many have no answer but an error."""
        return self.failures.total()


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be answered: numbered lines, of `source_bytes` in all (0: not known), and where the answers go.

    With `resume`, the output has the answers to the first of them.
    """

    lines: Iterator[tuple[int, bytes]]
    source_bytes: int
    output: OutputFile
    max_concurrency: int
    resume: bool = False


class BatchRunner:
    """One run over one input."""

    def __init__(self, client: HttpClient, batch: Batch) -> None:
        self._client = client
        self._asker = Asker(client, self._say)
        self._batch = batch
        self._answers = OrderedAnswers(batch.output)
        self._places = asyncio.Semaphore(batch.max_concurrency)
        self._written = asyncio.Event()
        self._parser = LineParser()
        self._progress = ProgressLine()
        self._read_bytes = 0
        self._began = time.monotonic()
        self.counts = BatchCounts()

    async def run(self) -> None:
        """Answer every line. Raises `HeadraceError` for what ends the whole run."""
        lines = self._batch.lines
        try:
            if self._batch.resume:
                await asyncio.to_thread(self._skip_answered)
            await self._client.connect()
            async with asyncio.TaskGroup() as tasks:
                while (numbered := await asyncio.to_thread(next, lines, None)) is not None:
                    await self._take_up(tasks, *numbered)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self._progress.clear()
            self._client.close()

    def _skip_answered(self) -> None:
        """Pass over the requests whose answers are there from an earlier run."""
        output = self._batch.output
        for custom_id in output.custom_ids():
            numbered = next(self._batch.lines, None)
            if numbered is None or self._parser.parse(*numbered).custom_id != custom_id:
                raise HeadraceError(
                    f"{output.partial} does not belong to this input: its answer {self.counts.resumed + 1} "
                    f"has the custom_id {custom_id!r}",
                    rule="It has the answers to the first requests of the input, in their order",
                    fix="Resume with the input of the run that was cut, or delete the file to start again",
                    param="resume",
                )
            self._read_bytes += len(numbered[1])
            self.counts.resumed += 1

    async def _take_up(self, tasks: asyncio.TaskGroup, number: int, line: bytes) -> None:
        """Give the line its place in the output, and ask for its answer once there is room."""
        while self._answers.held_bytes > MAX_HELD_BYTES:
            self._written.clear()
            await self._written.wait()
        self._read_bytes += len(line)
        place = self._answers.take_place()
        found = self._parser.parse(number, line)
        if isinstance(found, BadLine):
            self._fill(place, unasked(found.custom_id, found.error))
        else:
            await self._places.acquire()
            tasks.create_task(self._answer(place, found))

    async def _answer(self, place: list[bytes], request: BatchRequest) -> None:
        try:
            self._fill(place, answered(request.custom_id, await self._asker.ask(request)))
        except AnswerTimeout as error:
            self._fill(place, unanswered(request.custom_id, str(error)))
        finally:
            self._places.release()

    def _fill(self, place: list[bytes], answer: AnswerLine) -> None:
        self.counts.add(answer)
        self._answers.fill(place, answer.line)
        self._written.set()
        if self._progress.due():
            self._progress.show(self._so_far())

    def _say(self, text: str) -> None:
        self._progress.clear()
        print(text, file=sys.stderr, flush=True)

    def _so_far(self) -> str:
        counts, seconds = self.counts, time.monotonic() - self._began
        total = self._batch.source_bytes
        share = f"{self._read_bytes / total:.0%} read, " if total else ""
        return (
            f"{share}{counts.done + counts.resumed:,} done, {counts.failed:,} failed, {counts.done / seconds:,.1f} "
            f"requests/s, {counts.completion_tokens / seconds:,.0f} tokens/s"
        )
