"""From a configuration to a running engine: find the files, plan the memory, load, allocate.

Nothing big is allocated before the plan says that it fits.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from headrace.core.config import EngineConfig
from headrace.core.errors import HeadraceError
from headrace.core.limits import ModelLimits
from headrace.engine.engine import Engine
from headrace.engine.kv.manager import KVManager
from headrace.engine.loaded import EnginePlan, LoadedEngine
from headrace.engine.run.rows import Rows
from headrace.engine.run.runner import Runner
from headrace.engine.sample.sampler import Sampler
from headrace.engine.sched.scheduler import Limits, Scheduler
from headrace.kernels.ops import HeadShape, Ops, kv_cache
from headrace.kernels.select import start_kernels
from headrace.models.decoder import Decoder
from headrace.models.dtype import resolve_dtype
from headrace.models.load import load_model
from headrace.models.open import shape_of
from headrace.planner.cache_plan import cpu_budget, plan_cache
from headrace.planner.gguf_weights import GgufWeights
from headrace.planner.hf_config import shape_from_config
from headrace.planner.host import available_memory_bytes
from headrace.planner.memory import Form, activation_bytes, rope_table_bytes, weight_bytes
from headrace.planner.outline.from_shape import longest_context
from headrace.planner.shape import ModelShape
from headrace.store.files import ModelFiles
from headrace.store.resolve import resolve
from headrace.text.tokenizer import Tokenizer, open_tokenizer

DEFAULT_BATCHED_TOKENS = {"cpu": 512, "cuda": 8192}


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
    """Build the engine that `config` describes. Raises `HeadraceError` for whatever of it cannot be served."""
    watch = Stopwatch()
    kernels = start_kernels(_device(config.device))
    with watch.phase("files"):
        files = find_files(config)
    plan = plan_engine(config, files)
    with watch.phase("tokenizer"):
        tokenizer = _open_tokenizer(config, files) if with_tokenizer else None
    with watch.phase("kernels"):
        ops, kernel_report = kernels.ops(plan.dtype)
    engine, model = _build(plan, ops, watch)
    return LoadedEngine(plan, engine, tokenizer, _report(plan, model, kernel_report, watch), watch.seconds)


def find_files(config: EngineConfig) -> ModelFiles:
    """The model's files, downloaded if they are not here yet."""
    files = resolve(
        config.model,
        revision=config.revision,
        download_dir=config.download_dir,
        token=config.hf_token,
        check_config=shape_from_config,
    )
    if config.load_format not in ("auto", files.kind):
        raise HeadraceError(
            f"load_format is {config.load_format!r}",
            rule=f"The weights of {config.model} are {files.kind}",
            fix="Leave load_format out",
            param="load_format",
        )
    return files


def plan_engine(config: EngineConfig, files: ModelFiles) -> EnginePlan:
    """Decide device, dtype, cache and limits; refuse what does not fit."""
    shape = shape_of(files)
    device = _device(config.device)
    dtype = resolve_dtype(config.dtype, shape, files.kind, device)
    limits = _limits(config, device)
    weights = _weight_bytes(config, files, shape, dtype, device)
    positions = config.max_model_len if isinstance(config.max_model_len, int) else longest_context(shape)
    weights += rope_table_bytes(shape, positions)
    activations = activation_bytes(shape, limits.max_num_batched_tokens, limits.max_num_seqs, dtype.itemsize)
    budget = cpu_budget(_available_bytes(device, config), weights, activations, config.kv_cache_memory_bytes)
    cache = plan_cache(
        shape,
        budget,
        block_size=config.block_size,
        kv_dtype_bytes=dtype.itemsize,
        max_model_len=config.max_model_len,
        max_num_seqs=config.max_num_seqs,
        num_blocks_override=config.num_gpu_blocks_override,
    )
    return EnginePlan(config, files, shape, device, dtype, cache, limits)


def _build(plan: EnginePlan, ops: Ops, watch: Stopwatch) -> tuple[Engine, Decoder]:
    config, shape, cache, device = plan.config, plan.shape, plan.cache, plan.device
    with watch.phase("weights"):
        model = load_model(
            plan.files, shape, ops, dtype=plan.dtype, quantization=config.quantization, device=device,
            max_model_len=cache.max_model_len,
        )  # fmt: skip
    with watch.phase("cache"):
        heads = HeadShape(shape.num_heads, shape.num_kv_heads, shape.head_dim)
        caches = kv_cache(shape.num_layers, cache.num_blocks, config.block_size, heads, plan.dtype, device)
        rows = Rows(config.max_num_seqs, -(-cache.max_model_len // config.block_size), device)
        sampler = Sampler(config.max_num_seqs, shape.vocab_size, device)
    kv = KVManager(cache.num_blocks, config.block_size, enable_prefix_caching=config.enable_prefix_caching)
    engine = Engine(
        Scheduler(kv, plan.limits),
        Runner(model, ops, caches, rows, sampler, device),
        ModelLimits(cache.max_model_len, shape.vocab_size, config.max_logprobs),
        seed=config.seed,
        priority_scheduling=config.scheduling_policy == "priority",
    )
    return engine, model


def _limits(config: EngineConfig, device: torch.device) -> Limits:
    tokens = config.max_num_batched_tokens
    if tokens is None:
        tokens = max(DEFAULT_BATCHED_TOKENS.get(device.type, 2048), config.max_num_seqs)
    if tokens < config.max_num_seqs:
        raise HeadraceError(
            f"max_num_batched_tokens is {tokens} and max_num_seqs is {config.max_num_seqs}",
            rule="Every running sequence gets one token a step, so the step must hold max_num_seqs tokens",
            fix=f"Use --max-num-batched-tokens {config.max_num_seqs} or more, or fewer sequences",
            param="max_num_batched_tokens",
        )
    return Limits(config.max_num_seqs, tokens, config.enable_chunked_prefill)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    count = torch.cuda.device_count()
    if kind == "cuda" and int(index if index.isdigit() else 0) >= count:
        rule = f"torch sees {count} CUDA GPUs here" + (f", cuda:0 to cuda:{count - 1}" if count else "")
        raise HeadraceError(f"device is {name!r}", rule=rule, fix="Use device='auto' or 'cpu'", param="device")
    return torch.device(name)


def _available_bytes(device: torch.device, config: EngineConfig) -> int:
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return min(free, int(total * config.gpu_memory_utilization))
    return available_memory_bytes()


def _weight_bytes(
    config: EngineConfig, files: ModelFiles, shape: ModelShape, dtype: torch.dtype, device: torch.device
) -> int:
    """What the weights will take; a CPU's kernels lay a float head out beside the table that it is tied to."""
    name, on_cpu = str(dtype).removeprefix("torch."), device.type == "cpu"
    if files.header is not None:
        groups = config.quantization == "int4" or (config.quantization == "auto" and on_cpu and name == "bfloat16")
        return GgufWeights(
            files.header, config.quantization, name, keeps_groups=groups, packs_head=on_cpu
        ).nbytes()  # fmt: skip
    forms: dict[str, Form] = {"float32": "float32", "float16": "float16", "int8": "int8", "int4": "int4"}
    form = forms.get(config.quantization) or forms.get(name, "bfloat16")
    return weight_bytes(shape, form, dtype.itemsize, packs_head=on_cpu)


def _open_tokenizer(config: EngineConfig, files: ModelFiles) -> Tokenizer:
    return open_tokenizer(config.tokenizer or files.path, chat_template=config.chat_template)


def _report(plan: EnginePlan, model: Decoder, kernels: str, watch: Stopwatch) -> list[tuple[str, str]]:
    size = f"{model.nbytes / 2**20:,.0f} MiB"
    return [
        ("Model", f"{plan.config.model} ({plan.shape.architecture}), {size} on {plan.device.type}"),
        *((label.capitalize(), text) for label, text in model.summary),
        ("Kernels", kernels),
        *plan.cache.lines,
        ("Seconds", watch.line()),
    ]
