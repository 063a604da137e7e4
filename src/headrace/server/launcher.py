"""What the server needs of the engine process; the command line, which knows both sides, supplies it."""

from collections.abc import Callable
from typing import Protocol

from headrace.server.model_text import ModelText


class EngineLauncher(Protocol):
    """Starts, watches and stops the engine process, of which there is one at a time.

    No method raises for a process that is already gone.
    """

    def start(self, address: str, on_exit: Callable[[str], None]) -> None:
        """Start the process, which connects to `address`.

        `on_exit` is called with the reason, from any thread, when it has ended.
        """

    def load(self) -> ModelText:
        """Find the model (downloading what is missing), let the engine load it, and load the front's share.

        Blocks; runs in a thread. Raises `HeadraceError` for a model that cannot be served.
        """

    def reload(self) -> None:
        """Let a process that was started again load the model that `load` found. Does not block."""

    def alive(self) -> bool:
        """Whether the process runs."""

    def stop(self, grace_seconds: float) -> None:
        """End the process, by force after `grace_seconds`, and wait until it is gone. Blocks."""
