"""A conversation in a terminal: the messages so far, and what each line typed does to them."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Protocol

from headrace.cli.errors import report
from headrace.core.errors import HeadraceError

Message = dict[str, str]

COMMANDS = {
    "/help": "this list",
    "/reset": "forget the conversation",
    "/system TEXT": "set the system message; without TEXT, remove it",
    "/exit": "leave, as Ctrl-D does",
}
"""What can be typed besides messages -> what it does."""


class Speaker(Protocol):
    """Whoever answers."""

    def speak(self, messages: list[Message], write: Callable[[str], None]) -> None:
        """Answer the last message, calling `write` with each piece of text. Raises `HeadraceError`."""


class ChatSession:
    """Reads lines until /exit or the end of the input. An answer that is interrupted stays as far as it came."""

    def __init__(self, speaker: Speaker, system: str | None, *, interactive: bool) -> None:
        self._speaker = speaker
        self._system = system
        self._interactive = interactive
        self._messages: list[Message] = []

    def run(self) -> None:
        """Talk until the other side has had enough. Without a terminal, the first error is raised."""
        if self._interactive:
            print("One line is one message; /help for more. Ctrl-C stops an answer.", file=sys.stderr)
        for line in self._lines():
            if line == "/exit":
                return
            if line.startswith("/"):
                self._command(line)
            elif line:
                self._ask(line)

    def _lines(self) -> Iterator[str]:
        if not self._interactive:
            yield from (line.strip() for line in sys.stdin)
            return
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (gives input() its line editing)
        while True:
            try:
                yield input("> ").strip()
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print("\n(/exit or Ctrl-D leaves)")

    def _command(self, line: str) -> None:
        name, _, argument = line.partition(" ")
        if name == "/help":
            for command, effect in COMMANDS.items():
                print(f"  {command:<14}{effect}", file=sys.stderr)
        elif name == "/reset":
            self._messages = []
        elif name == "/system":
            self._system = argument.strip() or None
        else:
            print(f"{name} is not a command; there are {', '.join(COMMANDS)}", file=sys.stderr)

    def _ask(self, line: str) -> None:
        pieces: list[str] = []

        def write(piece: str) -> None:
            pieces.append(piece)
            print(piece, end="", flush=True)

        system = [] if self._system is None else [{"role": "system", "content": self._system}]
        asked = [*self._messages, {"role": "user", "content": line}]
        try:
            self._speaker.speak([*system, *asked], write)
        except KeyboardInterrupt:
            print(" (stopped)", end="")
            if not self._interactive:
                raise
        except HeadraceError as error:
            if not self._interactive:
                raise
            report(error)
            return
        print()
        self._messages = [*asked, {"role": "assistant", "content": "".join(pieces)}]
