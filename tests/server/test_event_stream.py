"""The order of what is written, when a client begins to read again while a step comes in."""

import asyncio
from array import array

from headrace.core.sampling_params import RequestOutputKind, SamplingParams
from headrace.server.connection import EXTENSION, Connection
from headrace.server.dispatcher import Dispatcher
from headrace.server.event_stream import EventStream
from headrace.server.http import Exchange
from headrace.server.metrics import ServerMetrics
from headrace.server.usage import Usage
from headrace.text.stream import RequestStream
from headrace.wire.messages import AddRequest, StepOutput


class Client:
    """A client on the other side of ASGI and of the connection; `reads` is whether `send` returns."""

    def __init__(self):
        self.written = b""
        self.reads = asyncio.Event()
        self.reads.set()

    def write(self, data):
        self.written += data.split(b"\r\n")[1]

    def is_closing(self):
        return False

    def get_write_buffer_size(self):
        return 0

    async def send(self, message):
        await self.reads.wait()
        self.written += message.get("body", b"")


class Texts:
    """Events that are nothing but text."""

    def __init__(self):
        self.usage = Usage(1)

    def first(self):
        return b"<"

    def next(self, position, output):
        return b"".join(b'"%b"' % choice.text.encode() for choice in output.outputs)

    def around_text(self, position, number):
        return b"", b""

    def last(self):
        return b">"


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def test_what_was_held_back_comes_before_what_is_new(model_text):
    client, connection_of = Client(), {"http_version": "1.1", "method": "POST", "path": "/"}
    connection = Connection(client, stall_seconds=0)
    scope = {**connection_of, "headers": [], "extensions": {EXTENSION: connection}}
    exchange = Exchange(scope, client.send, client.send, max_body_bytes=1)
    params = SamplingParams(output_kind=RequestOutputKind.DELTA, max_tokens=100)
    stream = RequestStream("id", "x", [5], params, model_text.tokenizer, 0.0)
    dispatcher = Dispatcher(lambda command: None, ServerMetrics())
    submission = dispatcher.submit([(AddRequest([1], [5], params), stream)])
    run = asyncio.create_task(EventStream(exchange, submission, Texts()).run())

    def say(character, finish=0):
        [token_id] = model_text.tokenizer.encode(character, add_special_tokens=False)
        columns = (array("q", [1]), array("i", [token_id]), array("b", [finish]), array("i", [-1]))
        dispatcher.on_step(StepOutput(*(column.tobytes() for column in columns)))

    say("a")
    await until(lambda: b"a" in client.written and submission.waiting)
    say("b")
    assert client.written.endswith(b'"b"'), "a client that keeps up is written to at once"
    connection.on_pause()
    client.reads.clear()
    say("c")
    await until(lambda: not submission.num_untold)  # the task has it, and waits for the client
    say("d")
    connection.on_resume()
    client.reads.set()
    say("e")
    assert b"e" not in client.written
    await until(lambda: b"e" in client.written and submission.waiting)
    say("f", finish=2)
    await run
    text = client.written.replace(b'"', b"").replace(b"data: [DONE]\n\n", b"")
    assert text == b"<abcdef>"
