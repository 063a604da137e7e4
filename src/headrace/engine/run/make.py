"""Which runner a device gets."""

from headrace.engine.run.model import LoadedModel
from headrace.engine.run.rows import Rows
from headrace.engine.run.runner import Runner
from headrace.engine.run.step import StepRunner
from headrace.engine.sample.sampler import Sampler
from headrace.engine.sched.scheduler import Limits


def make_runner(loaded: LoadedModel, vocab_size: int, limits: Limits, *, eager: bool) -> tuple[StepRunner, int]:
    """A runner for steps within `limits`, and how many of them may be in flight.

    Where the kernels allow it steps are captured in CUDA graphs, unless `eager`, and rows live on the device.
    """
    if loaded.ops.capturable(loaded.heads):
        from headrace.engine.run.device.build import STEPS_IN_FLIGHT, device_runner

        runner = device_runner(loaded, vocab_size, limits)
        if not eager:
            runner.capture()
        return runner, STEPS_IN_FLIGHT
    return direct_runner(loaded, vocab_size, limits), 1


def direct_runner(loaded: LoadedModel, vocab_size: int, limits: Limits) -> Runner:
    """A runner that lays each step out on the host."""
    rows = Rows(limits.max_num_seqs, -(-loaded.max_model_len // loaded.block_size), loaded.device)
    return Runner(loaded, rows, Sampler(limits.max_num_seqs, vocab_size, loaded.device))
