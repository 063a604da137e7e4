"""One sequence on its way through the engine: its tokens, how many of them are in the cache, and in which blocks."""

from dataclasses import dataclass, field
from enum import Enum, auto

from headrace.core.outputs import TokenLogprobs
from headrace.core.sampling_params import SamplingParams


class State(Enum):
    """Where a request is. HELD is waiting for the sequence that it will be forked from."""

    HELD = auto()
    WAITING = auto()
    RUNNING = auto()
    FINISHED = auto()


@dataclass(slots=True, eq=False)
class Request:
    """A sequence. `tokens` are those that the host knows, the prompt first; it came with `num_given` of them.

    Those after the first `num_prompt` are output, also where they came with the request, which then continues an
    answer. `num_computed` of the tokens have their keys and values in `blocks`, or will have once the steps in flight
    are done; `num_unread` further tokens are sampled by steps in flight and not read yet. `num_remembered` of the
    blocks can be found by their hash. `key` orders requests, lower first. `keep_blocks` leaves a finished request its
    blocks until it is released, so that others can be forked off it; a `forked` one never computed its own prompt.
    `block_replaced`: one of its blocks is another since its table was last written where steps are computed.
    While it is `decoding`, what changes with each step is in the scheduler's columns and not in here.
    `end_token_ids` are all those that may end it. `arrival` is when it came (`time.monotonic`), and `queue_seconds`
    how long its prompt then waited for its first step.
    """

    uid: int
    tokens: list[int]
    params: SamplingParams
    max_total_tokens: int
    stop_token_ids: frozenset[int] = frozenset()
    eos_token_ids: frozenset[int] = frozenset()
    bad_words_token_ids: list[list[int]] = field(default_factory=list)
    key: tuple[int, int, int] = (0, 0, 0)
    seed: int = 0
    hash_seed: bytes = b""
    keep_blocks: bool = False
    num_prompt: int = 0
    arrival: float = 0.0

    state: State = State.WAITING
    num_given: int = 0
    num_computed: int = 0
    num_unread: int = 0
    num_remembered: int = 0
    steps_in_flight: int = 0
    num_cached: int | None = None
    queue_seconds: float | None = None
    num_preemptions: int = 0
    forked: bool = False
    block_replaced: bool = False
    decoding: bool = False
    row: int = -1
    blocks: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    children: list["Request"] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs | None] = field(default_factory=list)

    end_token_ids: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        self.end_token_ids = self.eos_token_ids | self.stop_token_ids
        self.num_given = len(self.tokens)
        self.num_prompt = self.num_prompt or self.num_given
        self.prompt_logprobs = [None]

    @property
    def num_tokens(self) -> int:
        """Tokens of the sequence, those not read yet included."""
        return len(self.tokens) + self.num_unread

    @property
    def num_output(self) -> int:
        """Tokens of the answer so far, those not read yet included."""
        return self.num_tokens - self.num_prompt

    @property
    def num_to_compute(self) -> int:
        """Tokens that the next step could compute; 0 while the sequence can grow no further.

        Bad words of several tokens are compared with what the host has read, so nothing may be unread. Asked for
        each sequence in each step, and so in terms of fields alone.
        """
        num_tokens = len(self.tokens) + self.num_unread
        if num_tokens >= self.max_total_tokens and num_tokens > self.num_prompt:
            return 0
        if self.num_unread and self.bad_words_token_ids:
            return 0
        return num_tokens - self.num_computed
