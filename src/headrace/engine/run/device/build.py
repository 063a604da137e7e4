"""Puts a `DeviceRunner` together."""

from headrace.engine.run.device.buckets import step_buckets
from headrace.engine.run.device.layout import Layout
from headrace.engine.run.device.mailbox import Mailbox
from headrace.engine.run.device.program import StepProgram
from headrace.engine.run.device.queue import DeviceQueue
from headrace.engine.run.device.rows import DeviceRows
from headrace.engine.run.device.runner import DeviceRunner
from headrace.engine.run.device.sampling import Sampling
from headrace.engine.run.model import LoadedModel
from headrace.engine.sample.device_sampler import DeviceSampler
from headrace.engine.sched.scheduler import Limits
from headrace.kernels.gpu.row_params import PARAM_FIELDS

STEPS_IN_FLIGHT = 2
"""A step is launched before the one before it is read."""

_LEAST_ROWS = 2
"""A captured pass serves rows that add one token and rows that add several, so it has one of each."""

_MAX_PAIRS = 16384
"""Changes of rows that go with a step; more go before it."""


def device_runner(loaded: LoadedModel, vocab_size: int, limits: Limits) -> DeviceRunner:
    """A runner for steps within `limits`; it launches kernel by kernel until `capture` is called."""
    device, most_tokens = loaded.device, limits.max_num_batched_tokens
    num_rows = max(limits.max_num_seqs, _LEAST_ROWS)
    queue = DeviceQueue(device)
    rows = DeviceRows(num_rows, -(-loaded.max_model_len // loaded.block_size), PARAM_FIELDS, device)
    buckets = step_buckets(num_rows, most_tokens)
    most_tokens = max(most_tokens, *buckets.tokens)
    layout = Layout(num_rows, most_tokens, _MAX_PAIRS)
    mailbox = Mailbox(layout, queue, STEPS_IN_FLIGHT + 1)
    program = StepProgram(loaded, rows, layout, mailbox, most_tokens)
    sampling = Sampling(DeviceSampler(num_rows, vocab_size, device), program, rows, mailbox)
    return DeviceRunner(loaded, rows, program, sampling, mailbox, queue, buckets, most_tokens)
