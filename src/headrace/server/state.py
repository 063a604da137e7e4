"""What every route needs: the engine, the names it answers to, and the threads that long texts are tokenized in."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from headrace.core.errors import ErrorKind
from headrace.server.admission import Admission
from headrace.server.engine_client import EngineClient
from headrace.server.errors import ApiError
from headrace.server.http import Exchange
from headrace.server.metrics import ServerMetrics
from headrace.server.options import ServerOptions
from headrace.server.text_threads import TextThreads

T = TypeVar("T")

INLINE_TEXT_CHARACTERS = 500
"""A text up to this long is tokenized on the event loop: the hop to a thread would cost more."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """One server. The first of `served_names` is the one that answers carry; `root` is where the model comes from."""

    client: EngineClient
    served_names: tuple[str, ...]
    root: str
    options: ServerOptions = field(default_factory=ServerOptions)
    max_logprobs: int = 20
    created: int = field(default_factory=lambda: int(time.time()))
    threads: TextThreads = field(default_factory=TextThreads)

    @property
    def metrics(self) -> ServerMetrics:
        """What the server counts."""
        return self.client.metrics

    @property
    def admission(self) -> Admission:
        """Who is let in."""
        return self.client.admission

    def model_name(self, asked: str | None) -> str:
        """The name to answer under. Raises a 404 that lists what is served."""
        if asked is None:
            return self.served_names[0]
        if asked in self.served_names:
            return asked
        raise ApiError(
            f"The model {asked!r} does not exist here",
            rule=f"Served: {', '.join(map(repr, self.served_names))}",
            fix="Use a served name, see /v1/models",
            param="model",
            kind=ErrorKind.NOT_FOUND,
            code="model_not_found",
        )

    async def off_loop(self, exchange: Exchange, num_characters: int, work: Callable[[], T]) -> T:
        """Run text work: at once if it is short, else in a thread, so that streams go on meanwhile.

        Raises as `TextThreads.run` does.
        """
        if num_characters <= INLINE_TEXT_CHARACTERS:
            return work()
        return await self.threads.run(exchange, num_characters, work, self.metrics.on_reject)
