"""The output file: written beside its place, in the order of the input, and moved there when it is whole.

Until then it is OUTPUT.partial, which always holds the answers to the first requests of the input: a run that was cut
can be resumed from it.
"""

import fcntl
import os
from collections import deque
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import msgspec

from headrace.cli.batch.answers import CustomId
from headrace.core.errors import ErrorKind, HeadraceError


def partial_of(path: Path) -> Path:
    """Where the answers are until all of them are there."""
    return path.with_name(path.name + ".partial")


class OutputFile:
    """OUTPUT.partial, then OUTPUT. One run at a time writes it."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._path = path
        self.partial = partial_of(path)
        self._check_place(resume)
        self._file = self._open()
        self._size = self._whole_lines() if resume else 0
        self._file.truncate(self._size)
        self._file.seek(self._size)

    def custom_ids(self) -> Iterator[str | None]:
        """The custom_id of each answer that is there already, in order."""
        with self.partial.open("rb") as answers:
            for number, line in enumerate(answers, 1):
                yield self._custom_id(number, line)

    def write(self, lines: list[bytes]) -> None:
        """Add answers; after this, killing the process does not lose them. Raises `HeadraceError` for a full disk."""
        try:
            rest = b"".join(lines)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise HeadraceError(
                f"{self.partial} cannot be written: {error.strerror}",
                fix="Make room, then go on with --resume",
                kind=ErrorKind.INTERNAL,
            ) from None

    def finish(self) -> None:
        """All answers are there: put the file in its place."""
        os.fsync(self._file.fileno())
        self.partial.replace(self._path)
        self._file.close()

    def close(self) -> None:
        """Stop here. What was answered stays in the partial file; closing twice, or after `finish`, is fine."""
        if not self._file.closed:
            if self.partial.stat().st_size == 0:
                self.partial.unlink(missing_ok=True)
            self._file.close()

    def _custom_id(self, number: int, line: bytes) -> str | None:
        try:
            return msgspec.json.decode(line, type=CustomId).custom_id
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise HeadraceError(
                f"Line {number} of {self.partial} is no answer of a batch",
                fix="Delete the file to start again",
                param="resume",
            ) from None

    def _check_place(self, resume: bool) -> None:
        if self._path.is_dir() or not self._path.parent.is_dir():
            raise HeadraceError(
                f"The output is {self._path}, which cannot be written",
                rule="It is a file in a directory that exists",
                fix=f"Make {self._path.parent}, or name another file",
                param="output_file",
            )
        if self.partial.exists() and self.partial.stat().st_size and not resume:
            raise HeadraceError(
                f"{self.partial} holds the answers of a run that was cut",
                fix="Go on from them with --resume, or delete the file to start again",
                param="resume",
            )

    def _open(self) -> FileIO:
        """Without a buffer: what could not be written must not be tried again when the file is closed."""
        try:
            file = FileIO(os.open(self.partial, os.O_RDWR | os.O_CREAT, 0o666), "r+")
        except OSError as error:
            raise HeadraceError(
                f"{self.partial} cannot be written: {error.strerror}", fix="Name another output", param="output_file"
            ) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise HeadraceError(
                f"{self.partial} is being written by another run", fix="Wait for it, or name another output"
            ) from None
        return file

    def _whole_lines(self) -> int:
        """How many bytes of the partial file are whole lines: the last one may have been cut."""
        with self.partial.open("rb") as answers:
            return sum(len(line) for line in answers if line.endswith(b"\n"))


class OrderedAnswers:
    """Answers come in any order and go out in the order in which their places were taken."""

    def __init__(self, output: OutputFile) -> None:
        self._output = output
        self._places: deque[list[bytes]] = deque()
        self.held_bytes = 0
        """Answers that wait for an earlier one."""

    def take_place(self) -> list[bytes]:
        """The next place in the order, for `fill`."""
        place: list[bytes] = []
        self._places.append(place)
        return place

    def fill(self, place: list[bytes], line: bytes) -> None:
        """Put an answer into its place, and write all that no earlier one is missing for."""
        place.append(line)
        self.held_bytes += len(line)
        ready = []
        while self._places and self._places[0]:
            ready += self._places.popleft()
        if ready:
            self.held_bytes -= sum(map(len, ready))
            self._output.write(ready)
