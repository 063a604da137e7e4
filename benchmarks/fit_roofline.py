"""Fit the planner's rates to measured steps: `python benchmarks/fit_roofline.py [--measured FILE] [--write]`.

The file has the GPU's name and a list of steps: model (of the planner's catalogue), phase ("decode", or "prefill" of
`batch` prompts of `context` tokens one after another), batch, context in tokens, ms, and `fit`: false keeps a step for
checking. What is minimized is the sum of squared relative errors, over the logarithms of the five rates (Gauss and
Newton's method, damped as by Levenberg and Marquardt). Prints each step beside its prediction and the worst error of
those that were fitted and of those that were not; --write keeps the rates in src/headrace/planner/data/roofline.json.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace.planner.catalogue import find_known
from headrace.planner.facts import facts_of_known
from headrace.planner.gpus import find_gpu
from headrace.planner.plan import Plan, plan_on
from headrace.planner.roofline import Efficiency, decode_speed, prefill_seconds
from headrace.planner.serving import Serving

MEASURED = Path(__file__).with_name("roofline.json")
KEPT = Path(__file__).parents[1] / "src/headrace/planner/data/roofline.json"
COMMAND = "python benchmarks/fit_roofline.py --write"
START = Efficiency(3.5e-6, 0.85, 0.85, 0.6, 0.6)
HIGHEST = Efficiency(math.inf, 0.905, 0.905, 0.905, 0.81)
"""What a large copy (3.03 TB/s) and a product of 8192 x 8192 (800 TFLOP/s) reach on an H100: no rate is beyond."""

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Step:
    """One measured step, and the plan that predicts it."""

    plan: Plan
    phase: str
    batch: int
    context: int
    ms: float
    fit: bool

    def predicted_ms(self, efficiency: Efficiency) -> float:
        """By the roofline."""
        if self.phase == "prefill":
            return self.batch * prefill_seconds(self.plan, self.context, efficiency) * 1000
        return decode_speed(self.plan, self.batch, self.context, efficiency).step_seconds * 1000


def main() -> None:
    """Fit, print, and keep if asked to."""
    arguments = _arguments()
    measured = json.loads(arguments.measured.read_text())
    steps = [read_step(entry, measured["gpu"]) for entry in measured["measured"]]
    efficiency = fit([step for step in steps if step.fit])
    for step in steps:
        _print(step, efficiency)
    for fitted in (True, False):
        errors = [abs(error(step, efficiency)) for step in steps if step.fit is fitted]
        if errors:
            print(f"{'fitted' if fitted else 'not fitted'}: {len(errors)} steps, worst error {max(errors):.1%}")
    dates = max(entry["as_of"] for entry in measured["measured"])
    text = json.dumps(
        {"as_of": dates, "gpu": measured["gpu"], "command": COMMAND, "efficiency": asdict(efficiency)}, indent=2
    )
    print(text)
    if arguments.write:
        KEPT.write_text(text + "\n")


def fit(steps: Sequence[Step]) -> Efficiency:
    """The rates with the least squared relative errors."""
    log_rates = _least_squares(
        lambda logs: np.array([error(step, _efficiency(logs)) for step in steps]), np.log(astuple(START))
    )
    rates = {name.name: float(f"{rate:.4g}") for name, rate in zip(fields(Efficiency), np.exp(log_rates), strict=True)}
    return Efficiency(**rates)


def error(step: Step, efficiency: Efficiency) -> float:
    """Relative: 0.1 is a prediction that is a tenth too slow."""
    return step.predicted_ms(efficiency) / step.ms - 1


def _efficiency(logs: Vector) -> Efficiency:
    return Efficiency(*map(float, np.exp(logs)))


def _least_squares(residuals: Callable[[Vector], Vector], start: Vector) -> Vector:
    """Levenberg and Marquardt, with the rates held below `HIGHEST`."""
    highest = np.log(astuple(HIGHEST))
    at, damping, cost = start, 1e-2, float(np.sum(residuals(start) ** 2))
    for _ in range(200):
        now = residuals(at)
        slopes = np.stack([(residuals(at + step) - now) / 1e-4 for step in 1e-4 * np.eye(len(at))], axis=1)
        normal = slopes.T @ slopes
        change = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-9), -slopes.T @ now)
        there = np.minimum(at + np.clip(change, -0.5, 0.5), highest)
        new = float(np.sum(residuals(there) ** 2))
        at, cost, damping = (there, new, damping / 3) if new < cost else (at, cost, damping * 3)
    return at


def read_step(entry: dict[str, object], gpu: str) -> Step:
    """One entry of the file, measured on the GPU of that name."""
    name = str(entry["model"])
    known = find_known(name)
    if known is None:
        raise SystemExit(f"{name} is not in the planner's catalogue")
    plan = plan_on(facts_of_known(known, name), Serving(), find_gpu(gpu))
    numbers = int(str(entry["batch"])), int(str(entry["context"])), float(str(entry["ms"]))
    return Step(plan, str(entry["phase"]), *numbers, fit=bool(entry["fit"]))


def _print(step: Step, efficiency: Efficiency) -> None:
    what = f"{step.plan.facts.name} {step.phase} {step.batch} x {step.context}"
    predicted = step.predicted_ms(efficiency)
    print(
        f"{what:52}{step.ms:9.2f} ms{predicted:9.2f} predicted{error(step, efficiency):+8.1%}"
        + ("" if step.fit else " *")
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, default=MEASURED, help="the measurements (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="keep the rates for `headrace plan`")
    return parser.parse_args()


if __name__ == "__main__":
    main()
