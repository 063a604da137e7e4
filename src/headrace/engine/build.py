"""From a configuration to a running engine: find the files, plan the memory, load, allocate.

Nothing big is allocated before the plan says that it fits.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from headrace.core.config import EngineConfig
from headrace.core.limits import ModelLimits
from headrace.core.screen import screen
from headrace.engine.engine import Engine
from headrace.engine.environment import environment_warnings
from headrace.engine.giving_back import nothing_left_on_failure
from headrace.engine.kv.manager import KVManager
from headrace.engine.loaded import EnginePlan, LoadedEngine
from headrace.engine.plan import plan_engine
from headrace.engine.preset import preset_line
from headrace.engine.progress_bar import ProgressBar
from headrace.engine.run.make import make_runner
from headrace.engine.run.model import LoadedModel
from headrace.engine.sched.scheduler import Scheduler
from headrace.engine.visible_gpus import one_of_several, resolve_device, visible_gpus
from headrace.kernels.ops import HeadShape, Ops, kv_cache
from headrace.kernels.select import start_kernels
from headrace.models.decoder import Decoder
from headrace.models.dtype import narrower_range
from headrace.models.load import load_model
from headrace.planner.hf_config import shape_from_config
from headrace.store.files import ModelFiles
from headrace.store.resolve import resolve
from headrace.text.tokenizer import Tokenizer, open_tokenizer


@dataclass(slots=True)
class Stopwatch:
    """Seconds by phase of the start."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a block under a name."""
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def line(self) -> str:
        """All phases in one line."""
        return " · ".join(f"{name} {seconds:.2f}" for name, seconds in self.seconds.items())


def load_engine(config: EngineConfig, *, with_tokenizer: bool = True) -> LoadedEngine:
    """Build the engine that `config` describes. Raises `HeadraceError` for whatever of it cannot be served.

    Whatever it raises, nothing of what was loaded by then stays.
    """
    with nothing_left_on_failure():
        return _load(config, with_tokenizer=with_tokenizer)


def _load(config: EngineConfig, *, with_tokenizer: bool) -> LoadedEngine:
    watch = Stopwatch()
    kernels = start_kernels(resolve_device(config.device))
    with watch.phase("files"):
        files = find_files(config)
    with watch.phase("plan"):
        plan = plan_engine(config, files)
    with watch.phase("tokenizer"):
        tokenizer = _open_tokenizer(config, files) if with_tokenizer and not config.skip_tokenizer_init else None
    with watch.phase("kernels"):
        ops, kernel_report = kernels.ops(plan.dtype)
    engine, model = _build(plan, ops, watch)
    return LoadedEngine(plan, engine, tokenizer, _report(plan, model, kernel_report, watch), watch.seconds)


def find_files(config: EngineConfig) -> ModelFiles:
    """The model's files, downloaded if they are not here yet."""
    return resolve(
        config.model,
        revision=config.revision,
        download_dir=config.download_dir,
        token=config.hf_token,
        progress=screen() is not None,
        load_format=config.load_format,
        check_config=shape_from_config,
    )


def _build(plan: EnginePlan, ops: Ops, watch: Stopwatch) -> tuple[Engine, Decoder]:
    config, shape, cache, device = plan.config, plan.shape, plan.cache, plan.device
    with watch.phase("weights"), ProgressBar("Loading weights", shape.num_layers, after_seconds=1) as bar:
        model = load_model(
            plan.files, shape, ops, dtype=plan.dtype, quantization=config.quantization, device=device,
            max_model_len=cache.max_model_len, seed=config.seed, watched=bar.over,
        )  # fmt: skip
    with watch.phase("cache"):
        heads = HeadShape(shape.num_heads, shape.num_kv_heads, shape.head_dim)
        caches = kv_cache(shape.num_layers, cache.num_blocks, config.block_size, heads, plan.kv_dtype, device)
        loaded = LoadedModel(model, ops, caches, heads, shape.hidden_size, plan.dtype, cache.max_model_len)
    with watch.phase("graphs"):
        runner, in_flight = make_runner(loaded, shape.vocab_size, plan.limits, eager=config.enforce_eager)
    kv = KVManager(cache.num_blocks, config.block_size, enable_prefix_caching=config.enable_prefix_caching)
    engine = Engine(
        Scheduler(kv, plan.limits),
        runner,
        ModelLimits(cache.max_model_len, shape.vocab_size, config.max_logprobs, plan.longest_context),
        seed=config.seed,
        steps_in_flight=in_flight,
        priority_scheduling=config.scheduling_policy == "priority",
    )
    return engine, model


def _open_tokenizer(config: EngineConfig, files: ModelFiles) -> Tokenizer:
    return open_tokenizer(config.tokenizer or files.path, chat_template=config.chat_template)


def _report(plan: EnginePlan, model: Decoder, kernels: str, watch: Stopwatch) -> list[tuple[str, str]]:
    size = f"{model.nbytes / 2**20:,.0f} MiB"
    unusable = visible_gpus().unusable if plan.device.type == "cpu" and plan.config.device == "auto" else None
    return [
        ("Model", f"{plan.config.model} ({plan.shape.architecture}), {size} on {plan.device.type}"),
        *((label.capitalize(), text) for label, text in model.summary),
        *(("Warning", text) for text in narrower_range(plan.config.dtype, plan.shape, plan.files.kind, plan.dtype)),
        *(("Warning", text) for text in environment_warnings(plan.device, os.environ)),
        *([("Warning", f"there is a GPU, but {unusable}")] if unusable else []),
        *one_of_several(plan.device, visible_gpus().count),
        ("Kernels", kernels),
        *preset_line(plan.config, plan.memory),
        *plan.cache.lines,
        ("Seconds", watch.line()),
    ]
