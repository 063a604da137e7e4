"""Beam search on the engine: every beam is a request of one token, forked off the beam that it continues.

A fork shares its parent's blocks and copies the one that it writes to, so that a prompt is held once however many
beams grow from it. Scores are vLLM's: summed logprob over length ** length_penalty, the prompt counted.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.core.errors import HeadraceError
from headrace.core.outputs import Logprob, TokenLogprobs
from headrace.core.sampling_params import BeamSearchParams, SamplingParams
from headrace.engine.engine import Engine
from headrace.engine.request import Request


@dataclass(slots=True)
class Beam:
    """A hypothesis: its tokens with the prompt, summed logprob, and the request whose blocks hold all but the last."""

    tokens: list[int]
    cum_logprob: float
    logprobs: list[TokenLogprobs]
    finished: bool = False
    request: Request | None = None

    def score(self, length_penalty: float) -> float:
        """Higher is better; an end token does not count as length."""
        return self.cum_logprob / math.pow(len(self.tokens) - self.finished, length_penalty)


class BeamSearch:
    """The search over one prompt, a step at a time, so that several searches share the engine's steps."""

    def __init__(
        self, engine: Engine, prompt: list[int], params: BeamSearchParams, eos_token_ids: Sequence[int],
        next_uid: Callable[[], int],
    ) -> None:  # fmt: skip
        self._engine = engine
        self._num_prompt = len(prompt)
        self._params = params
        self._eos = frozenset(() if params.ignore_eos else eos_token_ids)
        self._allowed = None if params.allowed_token_ids is None else frozenset(params.allowed_token_ids)
        self._next_uid = next_uid
        self._sampling = _one_token(params)
        self._completed: list[Beam] = []
        self._beams = [Beam(list(prompt), 0.0, [])]
        self._parents: list[Request] = []
        self._check()

    @property
    def done(self) -> bool:
        """Whether every beam is as long as it may be, or none is left."""
        grown = len(self._beams[0].tokens) - self._num_prompt if self._beams else 0
        return not self._beams or grown >= self._params.max_tokens

    def launch(self) -> list[int]:
        """Queue one request a beam and release the last round's; the uids of the new ones."""
        for beam in self._beams:
            parent, beam.request = beam.request, self._request(beam)
            if parent is None:
                self._engine.scheduler.add(beam.request)
            else:
                self._engine.scheduler.fork(parent, beam.request)
        self._release()
        self._parents = [beam.request for beam in self._beams if beam.request is not None]
        return [request.uid for request in self._parents]

    def advance(self, logprobs_of: dict[int, TokenLogprobs]) -> None:
        """Extend the beams by the candidates that their requests brought, and keep the best."""
        grown: list[Beam] = []
        for beam in self._beams:
            assert beam.request is not None
            entry = logprobs_of[beam.request.uid]
            for token, found in self._candidates(entry):
                child = Beam(
                    [*beam.tokens, token], beam.cum_logprob + found.logprob, [*beam.logprobs, entry],
                    token in self._eos, beam.request,
                )  # fmt: skip
                (self._completed if child.finished else grown).append(child)
        self._beams = self._best(grown)

    @property
    def beams(self) -> list[Beam]:
        """The best `beam_width` hypotheses so far, best first."""
        return self._best(self._completed + self._beams)

    def close(self) -> None:
        """Give back all blocks."""
        for beam in self._beams:
            if beam.request is not None:
                self._engine.abort([beam.request.uid])
        self._release()

    def _candidates(self, entry: TokenLogprobs) -> list[tuple[int, Logprob]]:
        """The tokens that a beam may go on with, likeliest first."""
        allowed = self._allowed
        items = [item for item in entry.items() if allowed is None or item[0] in allowed]
        return items[: 2 * self._params.beam_width]

    def _best(self, beams: list[Beam]) -> list[Beam]:
        penalty = self._params.length_penalty
        return sorted(beams, key=lambda beam: beam.score(penalty), reverse=True)[: self._params.beam_width]

    def _release(self) -> None:
        for request in self._parents:
            self._engine.scheduler.release(request)
        self._parents = []

    def _request(self, beam: Beam) -> Request:
        uid = self._next_uid()
        return Request(
            uid=uid,
            tokens=list(beam.tokens),
            params=self._sampling,
            max_total_tokens=len(beam.tokens) + 1,
            key=(0, 0, uid),
            hash_seed=self._engine.scheduler.kv.hasher.seed(""),
            keep_blocks=True,
        )

    @property
    def max_blocks(self) -> int:
        """The most KV blocks that the search can hold at once, parents and children together."""
        blocks_for, width = self._engine.scheduler.kv.blocks_for, self._params.beam_width
        return blocks_for(self._num_prompt) + 2 * width * (blocks_for(self._params.max_tokens) + 2)

    def _check(self) -> None:
        """Refuse a search whose beams could not all be held, before anything is computed."""
        limits = self._engine.limits
        limits.check(self._beams[0].tokens, SamplingParams(max_tokens=self._params.max_tokens))
        limits.check_token_ids("allowed_token_ids", self._params.allowed_token_ids or ())
        kv = self._engine.scheduler.kv
        if self.max_blocks > kv.pool.num_blocks:
            raise HeadraceError(
                f"beam_width={self._params.beam_width} with max_tokens={self._params.max_tokens} may need "
                f"{self.max_blocks} KV blocks",
                rule=f"The cache has {kv.pool.num_blocks} blocks of {kv.block_size} tokens",
                fix="Use fewer beams or fewer tokens, or raise kv_cache_memory_bytes",
                param="beam_width",
            )


def checked_beam_params(params: object) -> BeamSearchParams:
    """`params`, if it is what it should be."""
    if isinstance(params, BeamSearchParams):
        return params
    rule = "It must be BeamSearchParams(beam_width=..., max_tokens=...)"
    raise HeadraceError(f"params is {params!r}", rule=rule, fix="Make one", param="params")


def run_searches(engine: Engine, searches: Sequence[BeamSearch]) -> None:
    """Run searches to their ends, as many side by side as the cache holds."""
    waiting = list(searches)
    while waiting:
        together, room = [], engine.scheduler.kv.pool.num_blocks
        while waiting and waiting[0].max_blocks <= room:
            room -= waiting[0].max_blocks
            together.append(waiting.pop(0))
        _run_together(engine, together)


def _run_together(engine: Engine, searches: Sequence[BeamSearch]) -> None:
    try:
        while active := [search for search in searches if not search.done]:
            wanted = {uid for search in active for uid in search.launch()}
            found: dict[int, TokenLogprobs] = {}
            while wanted - found.keys():
                output = engine.step()
                if output is not None and output.logprobs is not None:
                    found |= {row[0]: entry for row, entry in zip(output.rows(), output.logprobs, strict=True) if entry}
            for search in active:
                search.advance(found)
    except BaseException:
        engine.reset()
        raise
    for search in searches:
        search.close()


def _one_token(params: BeamSearchParams) -> SamplingParams:
    count = -1 if params.allowed_token_ids else 2 * params.beam_width
    return SamplingParams(max_tokens=1, temperature=0.0, logprobs=count)
