"""The answer to `headrace plan`: the GPU that was asked about or the smallest that does it, and what else there is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from headrace.planner.advice import advice, as_flags, engine_arguments, lighter, raised
from headrace.planner.choose import Demand, allowing, check_group, choices, nearest
from headrace.planner.facts import ModelFacts
from headrace.planner.gpus import Gpu
from headrace.planner.memory_plan import MemoryPlan
from headrace.planner.misfit import misfit, nothing_fits
from headrace.planner.plan import Plan, plan_on
from headrace.planner.price_book import known_prices
from headrace.planner.prices import Offer, offers
from headrace.planner.roofline import Speed, decode_speed, error_band, prefill_seconds
from headrace.planner.serving import Serving

_NO_GPU = "No known GPU does all that was asked"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked; `gpu` None leaves the choice."""

    facts: ModelFacts
    serving: Serving
    gpu: Gpu | None = None
    demand: Demand = field(default_factory=Demand)
    quantization: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """`plan` is the answer; `others` are the GPUs that would do, the smallest first.

    `offers` are instances that hold the plan, or any of these if no GPU was named, cheapest first. `arguments` are the
    engine's that make the plan, none if it does not fit.
    """

    question: Question
    plan: Plan
    others: tuple[Plan, ...]
    offers: tuple[Offer, ...]
    advice: tuple[str, ...]
    arguments: Mapping[str, object]

    @property
    def flags(self) -> list[str]:
        """The arguments as flags of `headrace serve`."""
        return as_flags(self.arguments)

    @property
    def enough(self) -> bool:
        """Whether the plan does what was asked for."""
        return self.question.demand.is_met_by(self.plan)


def report_on(question: Question) -> Report:
    """Answer. Raises `HeadraceError` for what cannot be asked; that nothing fits is an answer."""
    facts, serving = question.facts, question.serving
    check_group(facts, serving)
    others = tuple(choices(facts, _anywhere(question), question.demand))
    plan = _plan(question, others)
    lines = _lines(question, plan, others)
    arguments = engine_arguments(plan, question.quantization) if plan.fits else {}
    asked = others if question.gpu is None else (plan,) if plan.fits else ()
    cheapest = tuple(offers(asked, known_prices()))
    return Report(question, plan, others, cheapest, tuple(dict.fromkeys(lines)), arguments)


def _plan(question: Question, others: tuple[Plan, ...]) -> Plan:
    """The named GPU's, with as many of them as were asked for; else the smallest that does it, or the nearest."""
    facts, serving = question.facts, question.serving
    if question.gpu is None:
        return others[0] if others else nearest(facts, serving)
    roomy = plan_on(facts, allowing(serving, question.demand), question.gpu)
    return roomy if roomy.fits else plan_on(facts, serving, question.gpu)


def _lines(question: Question, plan: Plan, others: tuple[Plan, ...]) -> list[str]:
    """The advice: what is lacking or was changed, then what helps."""
    demand = question.demand
    if plan.fits:
        unmet = [f"{_NO_GPU}; this one has the most memory"] if question.gpu is None and not others else []
        return [*unmet, *raised(plan, question.serving.max_num_seqs), *advice(plan, demand)]
    closest = plan if others else nearest(question.facts, _anywhere(question))
    if not others and not closest.fits:
        return [*nothing_fits(closest), *lighter(closest, demand.concurrency)]
    return [*misfit(plan, others), *(() if others else (_NO_GPU,)), *advice(plan, demand)]


def _anywhere(question: Question) -> Serving:
    """The serving on GPUs that were not named: how many of the named one to take is said of that one only."""
    return question.serving if question.gpu is None else replace(question.serving, tensor_parallel_size=1)


def speeds(plan: Plan) -> tuple[Speed, ...]:
    """One sequence alone, and as many as are expected at once, on average half of the context long."""
    batches = {1, plan.expected(plan.context)} if plan.fits else set()
    return tuple(decode_speed(plan, batch, plan.context // 2) for batch in sorted(batches))


def as_dict(report: Report) -> dict[str, object]:
    """The report for machines: bytes, counts, and the formula and source of each line."""
    question, facts = report.question, report.question.facts
    outline = facts.outline
    return {
        "model": facts.name,
        "origin": facts.origin,
        "notes": list(facts.notes),
        "parameters": outline.parameters,
        "active_parameters": outline.active_parameters,
        "layers": outline.num_layers,
        "longest_context": outline.longest_context,
        "stored_bytes": None if facts.stored is None else facts.stored.nbytes,
        "stored_bytes_by_dtype": None if facts.stored is None else dict(facts.stored.bytes_by_dtype),
        "concurrency": question.demand.concurrency,
        "plan": plan_as_dict(report.plan),
        "enough": report.enough,
        "others": [plan_as_dict(plan) for plan in report.others],
        "offers": [offer_as_dict(offer) for offer in report.offers],
        "advice": list(report.advice),
        "engine_arguments": dict(report.arguments),
    }


def plan_as_dict(plan: Plan) -> dict[str, object]:
    """One plan for GPUs, with its predicted speed; bytes are those of each GPU."""
    length = plan.context
    return {
        "gpu": plan.gpu.name,
        "gpus": plan.serving.tensor_parallel_size,
        "gpu_bytes": plan.gpu.usable_bytes,
        **memory_as_dict(plan),
        "speed": [
            {"batch": each.batch, "itl_seconds": each.step_seconds, "tokens_per_second": each.tokens_per_second}
            for each in speeds(plan)
        ],
        "ttft_seconds": prefill_seconds(plan, length // 2) if length > 1 else None,
        "speed_error_band": error_band(plan),
    }


def memory_as_dict(plan: MemoryPlan) -> dict[str, object]:
    """What fills a device's memory, and what it then holds."""
    length, serving = plan.context, plan.serving
    scheme = serving.scheme or plan.facts.scheme
    return {
        "allowed_bytes": plan.allowed_bytes,
        "lines": [
            {"label": each.label, "bytes": each.nbytes, "formula": each.formula, "source": each.source}
            for each in plan.lines
        ],
        "kv_cache_bytes": max(0, plan.kv_bytes),
        "kv_cache_blocks": plan.num_blocks,
        "kv_bytes_per_token": plan.kv_bytes_per_token,
        "kv_cache_tokens": plan.cache_tokens,
        "fits": plan.fits,
        "longest_context": plan.longest_context,
        "context": length,
        "kv_bytes_per_sequence": {"ideal": plan.ideal_bytes(length), "reserved": plan.reserved_bytes(length)},
        "sequences": {"guaranteed": plan.guaranteed(length), "expected": plan.expected(length)} if length else None,
        "dtype": serving.dtype,
        "weights": serving.dtype if scheme is None else scheme.name,
    }


def offer_as_dict(offer: Offer) -> dict[str, object]:
    """One offer, with its price's date and source."""
    return {
        **asdict(offer.price),
        "tensor_parallel_size": offer.plan.serving.tensor_parallel_size,
        "replicas": offer.replicas,
        "sequences": offer.replicas * offer.batch,
        "tokens_per_second": offer.tokens_per_second,
        "usd_per_million_tokens": offer.usd_per_million_tokens,
    }
