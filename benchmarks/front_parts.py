"""What both servers of `front.py` stand on: the embedded model's tokenizer, and the fake engine that feeds them."""

import argparse
import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable, Coroutine

from headrace.cli.engine_launcher import EngineProcess
from headrace.cli.model_text import find_model, load_model_text
from headrace.core.config import EMBEDDED_MODEL, EngineConfig
from headrace.server import event_loop
from headrace.server.model_text import ModelText
from headrace.testing.fake_engine import Script

MODEL = "fake-model"
MAX_MODEL_LEN = 400_000
WORDS = "The quick brown fox jumps over the lazy dog, and the river runs on to the mill. "


def load_text() -> ModelText:
    """The tokenizer and template of the embedded model."""
    config = EngineConfig(model=EMBEDDED_MODEL)
    return load_model_text(config, find_model(config))


def said_tokens(text: ModelText, count: int) -> list[int]:
    """`count` tokens of plain English, each of which is text by itself."""
    tokens = text.tokenizer.encode(WORDS, add_special_tokens=False)
    return (tokens * (count // len(tokens) + 1))[:count]


class FakeEngine(EngineProcess):
    """The real launcher with the fake engine's command."""

    def __init__(self, text: ModelText, step_seconds: float) -> None:
        super().__init__(EngineConfig(), (sys.executable, "-m", "headrace.testing.fake_engine"))
        self._text = text
        self.script = Script(
            token_ids=said_tokens(text, 50_000),
            step_seconds=step_seconds,
            max_model_len=MAX_MODEL_LEN,
            vocab_size=text.tokenizer.vocab_size,
        )

    def load(self) -> ModelText:
        """Tell the fake engine what to say."""
        self.configure(self.script)
        return self._text


def run(main: Callable[[argparse.Namespace], Coroutine[None, None, None]]) -> None:
    """Run a server of the benchmark as it is told: on Headrace's base install, with httptools, or on asyncio's loop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--step-seconds", type=float, required=True)
    parser.add_argument("--admit", type=int, default=0, help="measure so many admissions in process, and end")
    parser.add_argument("--httptools", action="store_true")
    parser.add_argument("--asyncio", action="store_true")
    options = parser.parse_args()
    if not options.httptools:
        sys.modules["httptools"] = None  # type: ignore[assignment]  # uvicorn then finds none, as in a base install
    if options.asyncio:
        asyncio.run(main(options))
    else:
        event_loop.run(main(options))


def say_ready(listener: socket.socket) -> None:
    """Tell the benchmark where the server is, and which process."""
    print(json.dumps({"port": listener.getsockname()[1], "pid": os.getpid()}), flush=True)
