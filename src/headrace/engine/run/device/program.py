"""What the device does in a step up to the logits, on memory at fixed places: so it can be captured in graphs."""

import torch
from torch import Tensor

from headrace.engine.run.device.layout import Ints, Layout, SampleRows
from headrace.engine.run.device.mailbox import Mailbox
from headrace.engine.run.device.rows import DeviceRows
from headrace.engine.run.model import LoadedModel
from headrace.kernels.gpu.prepare_step import StepTensors, lay_out_step_launch
from headrace.kernels.ops import StepBatch


class StepProgram:
    """The model's passes over steps of at most `max_tokens`, each of which comes by `mailbox`."""

    def __init__(
        self, loaded: LoadedModel, rows: DeviceRows, layout: Layout, mailbox: Mailbox, max_tokens: int
    ) -> None:
        self._loaded = loaded
        self._rows = rows
        self._layout = layout
        self._mailbox = mailbox
        self._flat = torch.zeros(3, max_tokens, dtype=torch.int64, device=loaded.device)
        self._tables = torch.zeros_like(rows.block_tables)
        self._ends = torch.zeros(layout.max_rows, loaded.hidden_size, dtype=loaded.dtype, device=loaded.device)

    def forward(self, num_tokens: int, query_lens: Ints, kv_lens: Ints) -> Tensor:
        """Receive a step of `num_tokens`, padding included, and as many rows as there are lengths, and compute it.

        The lengths are each row's own, or the most that they can be where a graph is captured. Returns hidden states
        [T, H]; those that make tokens are kept for `logits`.
        """
        self._mailbox.receive(self._rows.memory)
        token_ids, batch = self._lay_out(num_tokens, query_lens, kv_lens)
        hidden = self._loaded.model.forward(token_ids, batch, self._loaded.caches)
        torch.index_select(hidden, 0, self.samples(len(query_lens)).at, out=self._ends[: len(query_lens)])
        return hidden

    def logits(self, count: int) -> Tensor:
        """Of the first `count` rows that sample, [S, V]."""
        return self._loaded.model.logits(self._ends[:count])

    def samples(self, count: int) -> SampleRows:
        """The first `count` rows that sample."""
        return self._layout.samples(self._mailbox.step, count)

    def _lay_out(self, num_tokens: int, query_lens: Ints, kv_lens: Ints) -> tuple[Tensor, StepBatch]:
        step, size = self._mailbox.step, self._loaded.block_size
        rows = self._layout.rows(step, len(query_lens))
        token_ids, positions, slots = self._flat[:, :num_tokens]
        laid_out = StepTensors(token_ids, positions, slots, self._tables[: len(query_lens)])
        tables, last_tokens = self._rows.block_tables, self._rows.last_tokens
        lay_out_step_launch(step, self._layout.tokens(step), rows, tables, last_tokens, laid_out, size).run()
        start, context = rows.query_start, rows.context_lens
        return token_ids, StepBatch(positions, slots, start, context, laid_out.block_tables, query_lens, kv_lens)
