"""`LLM`: the engine in this process, with vLLM's offline API."""

import warnings
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NoReturn

from headrace.core.argument_words import told_in_python
from headrace.core.config import EMBEDDED_MODEL, EngineConfig
from headrace.core.errors import HeadraceError, not_yet
from headrace.core.outputs import BeamSearchOutput, BeamSearchSequence, RequestOutput
from headrace.core.sampling_params import BeamSearchParams, SamplingParams
from headrace.engine.beam import Beam, BeamSearch, checked_beam_params, run_searches
from headrace.engine.build import load_engine
from headrace.engine.frontend import Frontend
from headrace.engine.giving_back import no_frames_on_failure
from headrace.engine.loaded import LoadedEngine
from headrace.engine.progress import GenerationProgress
from headrace.engine.prompts import ParsedPrompt, Prompt, checked_params, parse_prompts, per_prompt
from headrace.text.stream import RequestStream
from headrace.text.tokenizer import Tokenizer
from headrace.wire.messages import AddRequest, EngineStats

Message = Mapping[str, object]
Conversation = Sequence[Message]


class LLM:
    """A model, its engine and its tokenizer. Keyword arguments are vLLM's (see `EngineConfig`).

    `close()`, leaving the `with` block, or its end as garbage gives all memory back; so does a constructor that raises.
    Not for several threads at once: use `AsyncLLM`. Raises `HeadraceError` for a model or an argument that cannot be
    served.
    """

    def __init__(self, model: str = EMBEDDED_MODEL, **kwargs: object) -> None:
        self._loaded: LoadedEngine | None = None
        with told_in_python():
            loaded = load_engine(EngineConfig.from_kwargs(model=model, **kwargs))
        self._loaded = loaded
        self._give_back = weakref.finalize(self, loaded.close)
        self._give_back.atexit = False  # the process's end gives it back sooner
        self._frontend = Frontend(loaded.optional_tokenizer, loaded.eos_token_ids, loaded.engine.abort)
        self._requests = 0
        for label, text in loaded.report:
            if label == "Warning":
                warnings.warn(text, stacklevel=2)

    @property
    def config(self) -> EngineConfig:
        """The configuration that it was built from."""
        return self._open.config

    @property
    def report(self) -> Sequence[tuple[str, str]]:
        """What was loaded, as (label, text) lines: model, dtype, cache, context, times."""
        return self._open.report

    @told_in_python()
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        priority: Sequence[int] | None = None,
        lora_request: None = None,
    ) -> list[RequestOutput]:
        """Complete each prompt; the outputs come in the order of the prompts.

        A prompt is text, token ids, or a dict with `prompt` or `prompt_token_ids`. Nothing is computed if any of
        them is refused.
        """
        if lora_request is not None:
            raise not_yet("lora_request", "Leave it out, or merge the adapter into the model", param="lora_request")
        parsed = parse_prompts(prompts)
        params = per_prompt("sampling_params", sampling_params, len(parsed))
        priorities = per_prompt("priority", 0 if priority is None else priority, len(parsed))
        prepared = [self._prepare(*request) for request in zip(parsed, params, priorities, strict=True)]
        return self._run(prepared, use_tqdm)

    @told_in_python()
    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, object]] | None = None,
        chat_template_kwargs: Mapping[str, object] | None = None,
    ) -> list[RequestOutput]:
        """Answer one conversation, or each of a list of them, through the model's chat template."""
        tokenizer = self.get_tokenizer()
        if isinstance(messages, Mapping):
            raise HeadraceError("messages is one message", rule="A conversation is a list", fix="Put it into a list")
        single = bool(messages) and isinstance(messages[0], Mapping)
        conversations = [messages] if single or not messages else messages
        rendered = [
            tokenizer.apply_chat_template(
                conversation,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                tools=tools,
                chat_template=chat_template,
                chat_template_kwargs=chat_template_kwargs,
            )
            for conversation in conversations
        ]
        prompts = [
            {"prompt": text, "prompt_token_ids": tokenizer.encode(text, add_special_tokens=False)} for text in rendered
        ]
        return self.generate(prompts, sampling_params, use_tqdm=use_tqdm)

    @told_in_python()
    def beam_search(self, prompts: Prompt | Sequence[Prompt], params: BeamSearchParams) -> list[BeamSearchOutput]:
        """The `beam_width` best continuations of each prompt, best first."""
        engine, eos = self._open.engine, self._open.eos_token_ids
        token_ids = [self._frontend.tokenized(prompt).token_ids or [] for prompt in parse_prompts(prompts)]
        searches = [
            BeamSearch(engine, ids, checked_beam_params(params), eos, self._frontend.next_uid) for ids in token_ids
        ]
        run_searches(engine, searches)
        return [self._beam_output(search.beams, params) for search in searches]

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._open.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """Defaults with what the model's generation_config.json says."""
        return self._open.default_sampling_params()

    def get_metrics(self) -> EngineStats:
        """Counters since the start: tokens, steps, preemptions, prefix-cache queries and hits, blocks."""
        return self._open.engine.stats()

    def reset_prefix_cache(self) -> bool:
        """Forget all cached prefixes."""
        self._open.engine.reset_prefix_cache()
        return True

    def close(self) -> None:
        """Give back the model and the cache, whoever still holds this object. Calling it again does nothing."""
        if self._loaded is not None:
            self._loaded = None
            self._frontend.detach()
            self._give_back()

    def __enter__(self) -> "LLM":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        """What was loaded, a line each: what a notebook shows of it."""
        if self._loaded is None:
            return "LLM, closed"
        width = max(len(label) for label, _ in self.report)
        return "\n".join(f"{label:<{width}}  {text}" for label, text in self.report)

    def encode(self, *_: object, **__: object) -> NoReturn:
        """Refused: pooling models are not built yet."""
        raise _no_pooling("encode")

    def embed(self, *_: object, **__: object) -> NoReturn:
        """Refused: pooling models are not built yet."""
        raise _no_pooling("embed")

    def score(self, *_: object, **__: object) -> NoReturn:
        """Refused: pooling models are not built yet."""
        raise _no_pooling("score")

    def classify(self, *_: object, **__: object) -> NoReturn:
        """Refused: pooling models are not built yet."""
        raise _no_pooling("classify")

    @property
    def _open(self) -> LoadedEngine:
        if self._loaded is None:
            raise HeadraceError("This LLM is closed", fix="Create a new one with LLM(...)")
        return self._loaded

    def _prepare(self, prompt: ParsedPrompt, params: object, priority: int) -> tuple[AddRequest, RequestStream]:
        limits = self._open.engine.limits
        prompt = self._frontend.tokenized(prompt)
        token_ids = prompt.token_ids or []
        checked = self._default_params(len(token_ids)) if params is None else checked_params(params)
        limits.check(token_ids, checked)
        self._requests += 1
        return self._frontend.prepare(prompt, checked, str(self._requests - 1), priority)

    def _default_params(self, num_prompt_tokens: int) -> SamplingParams:
        """The model's defaults, its longest answer cut to what the context has left."""
        params = self.get_default_sampling_params()
        room = self._open.engine.limits.max_model_len - num_prompt_tokens
        if params.max_tokens is not None and room >= 1:
            params.max_tokens = min(params.max_tokens, room)
        return params

    def _run(self, prepared: list[tuple[AddRequest, RequestStream]], show_progress: bool) -> list[RequestOutput]:
        """Run all requests to their ends. Interrupted, it leaves no request behind."""
        engine = self._open.engine
        with GenerationProgress(len(prepared), enabled=show_progress) as progress, no_frames_on_failure():
            try:
                for message, stream in prepared:
                    engine.add(message)
                    self._frontend.open(message, stream)
                while engine.has_work:
                    output = engine.step()
                    for stream in self._frontend.dispatch(output) if output else ():
                        progress.update(stream)
            except BaseException:
                for message, _ in prepared:
                    self._frontend.close(message)
                engine.reset()
                raise
        return [done for _, stream in prepared if (done := stream.output())]

    def _beam_output(self, beams: Sequence[Beam], params: BeamSearchParams) -> BeamSearchOutput:
        tokenizer = self.get_tokenizer()
        sequences = []
        for beam in beams:
            shown = beam.tokens[: -1 if beam.finished and not params.include_stop_str_in_output else None]
            text = tokenizer.decode(shown, skip_special_tokens=params.skip_special_tokens)
            reason = "stop" if beam.finished else "length"
            sequences.append(BeamSearchSequence(beam.tokens, beam.cum_logprob, text, reason, None, beam.logprobs))
        return BeamSearchOutput(sequences)


def _no_pooling(name: str) -> HeadraceError:
    return not_yet(f"LLM.{name}", "Use generate; prompt_logprobs scores the tokens of a prompt")
