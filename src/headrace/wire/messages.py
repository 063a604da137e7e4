"""The messages between the HTTP process and the engine process, and their encoding.

Commands go to the engine, events come back. A sequence is named by a `uid`, an integer that the sender chooses and
never uses again; a request with n > 1 has n of them. `StepOutput` is columns, not objects: one entry per token that
the step made, in four parallel arrays, because that costs a hundredth of a list of objects.
"""

from array import array
from collections.abc import Iterator

import msgspec

from headrace.core.outputs import TokenLogprobs
from headrace.core.sampling_params import SamplingParams

FINISH_REASONS = (None, "stop", "length", "abort", "error")
"""What each value of `StepOutput.finish` means."""

RUNNING, STOP, LENGTH, ABORT, ERROR = range(5)


class AddRequest(msgspec.Struct, tag="add", array_like=True):
    """Start a request. `uids` has `params.n` entries; lower `priority` runs first under the priority policy.

    `output_token_ids` continues a sequence that was cut: they were sampled before, elsewhere, and count as output for
    lengths, penalties and the noise's position. With them, `params.n` is 1.
    """

    uids: list[int]
    prompt_token_ids: list[int]
    params: SamplingParams
    eos_token_ids: list[int] = []
    bad_words_token_ids: list[list[int]] = []
    priority: int = 0
    cache_salt: str = ""
    output_token_ids: list[int] = []


class AbortRequests(msgspec.Struct, tag="abort", array_like=True):
    """End these sequences now, in whatever state they are; no further output of theirs is sent."""

    uids: list[int]


class ResetPrefixCache(msgspec.Struct, tag="reset_prefix_cache", array_like=True):
    """Forget every cached prefix that no running sequence holds."""


class Shutdown(msgspec.Struct, tag="shutdown", array_like=True):
    """Stop the engine process after the step in flight."""


Command = AddRequest | AbortRequests | ResetPrefixCache | Shutdown


class Ready(msgspec.Struct, tag="ready", array_like=True):
    """The engine can take requests. `report` is the start-up report, one (label, text) pair a line.

    `longest_context` in tokens is what the model reaches, where `max_model_len` may be less; None: it is not known.
    `cache_config` are the labels of the metric `vllm:cache_config_info`, `startup_seconds` the start-up's phases.
    """

    max_model_len: int
    vocab_size: int
    report: list[tuple[str, str]]
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2_048
    cache_config: dict[str, str] = {}
    startup_seconds: dict[str, float] = {}
    longest_context: int | None = None


class StepOutput(msgspec.Struct, tag="step", array_like=True):
    """What one step made, as columns of equal length.

    `uids` int64, `token_ids` int32 (-1: none, the sequence ended without one), `finish` int8 indexes
    `FINISH_REASONS`, `stop_token` int32 the stop token id that ended it (-1: none, or plain EOS).
    `logprobs` has an entry per row if any row asked for them; `prompt_logprobs`, `cached_tokens` (of the prompt) and
    `queue_seconds` (from the engine's receiving the request to its first step) come once a sequence, by uid, with its
    first token; `preemptions` with its last, if there were any. `num_tokens` is how many tokens the step computed.
    """

    uids: bytes
    token_ids: bytes
    finish: bytes
    stop_token: bytes
    logprobs: list[TokenLogprobs | None] | None = None
    prompt_logprobs: dict[int, list[TokenLogprobs | None]] = {}
    cached_tokens: dict[int, int] = {}
    queue_seconds: dict[int, float] = {}
    preemptions: dict[int, int] = {}
    num_tokens: int = 0

    def rows(self) -> Iterator[tuple[int, int, int, int]]:
        """(uid, token_id, finish, stop_token) row by row."""
        uids, tokens = array("q", self.uids), array("i", self.token_ids)
        return zip(uids, tokens, array("b", self.finish), array("i", self.stop_token), strict=True)


class RequestFailed(msgspec.Struct, tag="failed", array_like=True):
    """One request could not be served; the others go on. `status` is the HTTP status, the rest `HeadraceError`'s."""

    uids: list[int]
    what: str
    rule: str = ""
    fix: str = ""
    param: str | None = None
    status: int = 400


class EngineStats(msgspec.Struct, tag="stats", array_like=True):
    """Counters since the start, and what runs and waits now. Prefix cache queries and hits are counted in tokens.

    `num_waiting` counts sequences, also those that wait for the prompt that they share with another; of
    `num_waiting_tokens`, which are to be computed before they make a token, such a prompt's count once.
    `prompt_tokens` are what requests came with, counted once a request, with the first token made after them;
    `generation_tokens` are counted as they are handed out. `num_compilations` counts kernels built after the start.
    """

    num_running: int = 0
    num_waiting: int = 0
    num_waiting_tokens: int = 0
    num_blocks: int = 0
    num_free_blocks: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    num_preemptions: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    steps: int = 0
    num_compilations: int = 0


class EngineFailed(msgspec.Struct, tag="engine_failed", array_like=True):
    """The engine cannot go on, or could not start; the process exits after this. Fields as in `RequestFailed`."""

    what: str
    rule: str = ""
    fix: str = ""
    param: str | None = None
    status: int = 500


Event = Ready | StepOutput | RequestFailed | EngineStats | EngineFailed

_encoder = msgspec.msgpack.Encoder()
_commands: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_events: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


def encode(message: Command | Event) -> bytes:
    """One message as one frame."""
    return _encoder.encode(message)


def decode_command(frame: bytes | bytearray) -> Command:
    """The command in a frame."""
    return _commands.decode(frame)


def decode_event(frame: bytes | bytearray) -> Event:
    """The event in a frame."""
    return _events.decode(frame)
