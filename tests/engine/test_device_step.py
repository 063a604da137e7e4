"""What a GPU is told of a step and makes of it, against the step laid out on the host; interpreted without a GPU."""

import numpy as np
import pytest
import torch
from torch import Tensor

from headrace.core.sampling_params import SamplingParams
from headrace.engine.kv.manager import KVManager
from headrace.engine.request import Request
from headrace.engine.run.device.layout import Layout
from headrace.engine.run.device.mailbox import Mailbox
from headrace.engine.run.device.program import StepProgram
from headrace.engine.run.device.queue import DeviceQueue
from headrace.engine.run.device.rows import DeviceRows
from headrace.engine.run.model import LoadedModel
from headrace.engine.sched.plan import PlannedRow, StepPlan
from headrace.kernels.batch import make_step_batch
from headrace.kernels.ops import HeadShape, LayerCache, StepBatch, kv_cache
from headrace.kernels.torch_ops import TorchOps

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BLOCK_SIZE, NUM_ROWS, MAX_BLOCKS, MAX_TOKENS = 8, 6, 40, 700


class Witness:
    """A model that keeps what it was given; its hidden states are the tokens."""

    def forward(self, token_ids: Tensor, batch: StepBatch, caches: list[LayerCache]) -> Tensor:
        self.token_ids, self.batch = token_ids, batch
        return token_ids[:, None].float()

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden


class Device:
    """A device's side of steps, driven by hand."""

    def __init__(self, max_pairs: int = 512) -> None:
        self.model = Witness()
        heads = HeadShape(1, 1, 8)
        caches = kv_cache(1, 2, BLOCK_SIZE, heads, torch.float32, DEVICE)
        loaded = LoadedModel(self.model, TorchOps(), caches, heads, 1, torch.float32, 300)
        self.rows = DeviceRows(NUM_ROWS, MAX_BLOCKS, 3, DEVICE)
        layout = Layout(NUM_ROWS, MAX_TOKENS, max_pairs)
        self.mailbox = Mailbox(layout, DeviceQueue(DEVICE), 3)
        self.program = StepProgram(loaded, self.rows, layout, self.mailbox, MAX_TOKENS)

    def step(self, planned: list[PlannedRow], *, padded_tokens: int = 0, padded_rows: int = 0) -> Tensor:
        for row in planned:
            self.rows.extend(row.request)
        facts = self.mailbox.send(StepPlan(planned), self.rows.take_changes())
        lens = [np.pad(lens, (0, padded_rows)) for lens in (facts.query_lens, facts.kv_lens)]
        self.program.forward(facts.num_tokens + padded_tokens, *lens)
        return self.program.logits(facts.num_samples).flatten()


@pytest.fixture
def device() -> Device:
    return Device()


def request(row: int, num_tokens: int, blocks: list[int]) -> Request:
    """A running request of consecutive tokens that begin with 1,000 times its row."""
    tokens = [1000 * row + n for n in range(num_tokens)]
    made = Request(row, tokens, SamplingParams(), 400, row=row)
    made.blocks = blocks
    return made


def random_rows(generator: np.random.Generator) -> list[PlannedRow]:
    """Rows in any order with chunks of 1 to 300 tokens, some of them the end of what is known."""
    free = generator.permutation(2000).tolist()
    planned = []
    for row in generator.permutation(NUM_ROWS)[: generator.integers(1, NUM_ROWS + 1)].tolist():
        known = int(generator.integers(1, 300))
        end = known if generator.random() < 0.7 else int(generator.integers(1, known + 1))
        count = 1 if generator.random() < 0.5 else min(end, int(generator.integers(1, 110)))
        blocks = [free.pop() for _ in range(-(-end // BLOCK_SIZE))]
        planned.append(PlannedRow(request(row, known, blocks), end - count, count, known))
    return planned


@pytest.mark.parametrize("attempt", range(4))
def test_a_step_is_laid_out_as_on_the_host(device: Device, attempt: int) -> None:
    planned = random_rows(np.random.default_rng())
    for row in planned:
        device.rows.admit(row.request, [1, 2, 3])
    padded_tokens, padded_rows = 5 * attempt, min(attempt, NUM_ROWS - len(planned))
    ends = device.step(planned, padded_tokens=padded_tokens, padded_rows=padded_rows)
    expected = make_step_batch(
        [row.count for row in planned],
        [row.end for row in planned],
        [row.request.blocks for row in planned],
        BLOCK_SIZE,
    )
    batch, total, count = device.model.batch, len(expected.positions), len(planned)
    tokens = [token for row in planned for token in row.request.tokens[row.start : row.end]]
    assert device.model.token_ids.tolist() == tokens + [0] * padded_tokens
    assert batch.positions.tolist() == expected.positions.tolist() + [0] * padded_tokens
    assert batch.slots.tolist() == expected.slots.tolist() + [-1] * padded_tokens
    assert batch.query_start.tolist() == expected.query_start.tolist() + [total] * padded_rows
    assert batch.context_lens.tolist() == expected.context_lens.tolist() + [0] * padded_rows
    for i, row in enumerate(planned):
        assert batch.block_tables[i, : len(row.request.blocks)].tolist() == row.request.blocks
    sampling = [row for row in planned if row.samples]
    assert ends.tolist() == [row.request.tokens[-1] for row in sampling]
    samples = device.program.samples(NUM_ROWS)
    assert samples.row_ids.tolist() == [row.request.row for row in sampling] + [-1] * (NUM_ROWS - len(sampling))
    assert samples.positions[: len(sampling)].tolist() == [row.known for row in sampling]
    assert count == len(batch.context_lens) - padded_rows


def test_an_unread_token_comes_from_its_row(device: Device) -> None:
    first, second = request(2, 9, [3, 4]), request(4, 5, [7])
    for made in (first, second):
        device.rows.admit(made, [0, 0, 0])
    device.rows.last_tokens[2] = 77
    device.step([PlannedRow(second, 0, 5, 5), PlannedRow(first, 9, 1, 10)])
    assert device.model.token_ids.tolist() == [*second.tokens, 77]
    assert device.model.batch.slots.tolist()[-1] == 4 * BLOCK_SIZE + 1


def test_a_row_gets_only_the_blocks_that_it_does_not_have(device: Device) -> None:
    made = request(1, 30, [9, 8, 7, 6])
    device.rows.admit(made, [5, 6, 7])
    device.step([PlannedRow(made, 0, 30, 30)])
    made.blocks.append(5)
    device.rows.extend(made)
    assert device.rows.take_changes().tolist() == [[MAX_BLOCKS + 4, 5]]
    made.blocks[1] = 33
    made.block_replaced = True
    device.rows.extend(made)
    assert device.rows.take_changes()[:, 1].tolist() == [9, 33, 7, 6, 5]
    assert device.rows.params[1].tolist() == [5, 6, 7]


def test_a_new_owner_of_a_row_begins_anew(device: Device) -> None:
    first, second = request(3, 20, [1, 2, 3]), request(3, 3, [9])
    device.rows.admit(first, [1, 1, 1])
    device.step([PlannedRow(first, 0, 20, 20)])
    device.rows.admit(second, [2, 2, 2])
    device.step([PlannedRow(second, 0, 3, 3)])
    assert device.rows.block_tables[3, 0] == 9
    assert device.rows.params[3].tolist() == [2, 2, 2]
    assert device.model.batch.slots.tolist() == [9 * BLOCK_SIZE, 9 * BLOCK_SIZE + 1, 9 * BLOCK_SIZE + 2]


def test_buffers_in_turn_do_not_mix_steps(device: Device) -> None:
    made = request(0, 200, [5, 6, *range(10, 40)])
    device.rows.admit(made, [0, 0, 0])
    for start in range(12):
        device.step([PlannedRow(made, start, 1, 200)])
        assert device.model.token_ids.tolist() == [start]


def test_a_block_replaced_while_its_row_was_left_out_reaches_the_device(device: Device) -> None:
    """A step may make the copy without the row: the request was held back, and comes with a later step."""
    kv = KVManager(8, BLOCK_SIZE)
    parent, child = request(1, 12, []), request(2, 12, [])
    kv.allocate(parent, 12)
    parent.num_computed = 12
    for made in (parent, child):
        device.rows.admit(made, [0, 0, 0])
    device.step([PlannedRow(parent, 0, 12, 12)])
    kv.fork(parent, child, 11)
    shared = parent.blocks[1]
    assert kv.allocate(parent, 13)
    assert [source for source, _ in kv.take_copies()] == [shared]
    parent.tokens.append(5)
    device.step([PlannedRow(parent, 12, 1, 13)])
    assert device.rows.block_tables[1, :2].tolist() == parent.blocks
    assert parent.blocks[1] != shared
