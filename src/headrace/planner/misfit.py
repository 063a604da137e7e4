"""What a plan on GPUs lacks that does not fit, and what would make it fit, in sentences."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from headrace.planner.cures import flags_that_cure
from headrace.planner.memory import GIB
from headrace.planner.plan import Plan, plan_on
from headrace.planner.tensor_parallel import divides


def misfit(plan: Plan, others: Sequence[Plan]) -> Iterator[str]:
    """For a GPU that was named: what is missing, and flags that help there, or else the smallest of `others`."""
    yield f"It does not fit: {shortfall(plan)}"
    if plan.longest_context > 0 and not plan.serving.kv_asked_for:
        yield f"--max-model-len {plan.longest_context} is the longest context that fits"
    elif (cure := _cure(plan)) is not None:
        yield cure
    if (larger := _over_more(plan)) is not None:
        size = larger.serving.tensor_parallel_size
        yield f"--tensor-parallel-size {size} fits: {holds(larger, larger.context)}"
    elif others:
        size = others[0].serving.tensor_parallel_size
        spread = f" --tensor-parallel-size {size}" if size > 1 else ""
        yield f"--gpu {others[0].gpu.name}{spread} does it"


def nothing_fits(closest: Plan) -> Iterator[str]:
    """For a model that no known GPU serves: what the nearest lacks, and what would make it fit there."""
    size = closest.serving.tensor_parallel_size
    yield f"No known GPU serves this; the nearest is {size} x {closest.gpu.name}: {shortfall(closest)}"
    cure = _cure(closest)
    yield cure if cure is not None else "Use a smaller model, or a checkpoint with lighter weights (AWQ, GPTQ, fp8)"


def shortfall(plan: Plan) -> str:
    """What is missing on each GPU, in words."""
    length, cache = plan.serving.max_model_len, ""
    if plan.serving.kv_asked_for:
        cache = f" and {plan.kv_bytes / GIB:.1f} GiB for it as it was asked for"
    elif length is not None:
        cache = f" and {plan.reserved_bytes(length) / GIB:.2f} GiB for {length:,} tokens"
    used, allowed = plan.fixed_bytes / GIB, plan.allowed_bytes / GIB
    return f"{used:.1f} GiB without the KV cache{cache}, of {_few(allowed)} GiB allowed"


def holds(plan: Plan, length: int, wanted: int = 1) -> str:
    """How many sequences of `length` tokens a plan holds, and whether `wanted` are more."""
    count = plan.guaranteed(length)
    missed = f", still not {wanted:,}" if count < wanted else ""
    return f"{count} sequence{'s' if count != 1 else ''} of {length:,} tokens at once{missed}"


def _cure(plan: Plan) -> str | None:
    """The flag to change, or the format to leave out, on this GPU; None where that does not help."""
    own = replace(plan.serving, scheme=None)
    if plan.facts.scheme is not None and plan.serving.scheme is not None and plan_on(plan.facts, own, plan.gpu).fits:
        return f"Leave --quantization out: the checkpoint's own {plan.facts.scheme.name} weights fit"
    flags = flags_that_cure(plan)
    return None if flags is None else f"Use {flags}"


def _over_more(plan: Plan) -> Plan | None:
    """The same spread over more of these GPUs, where that fits."""
    for size in (2, 4, 8):
        if size > plan.serving.tensor_parallel_size and divides(plan.facts.outline, size):
            larger = plan_on(plan.facts, replace(plan.serving, tensor_parallel_size=size), plan.gpu)
            if larger.fits:
                return larger
    return None


def _few(gib: float) -> str:
    return f"{gib:.1f}" if gib >= 1 else f"{gib:.2g}"
