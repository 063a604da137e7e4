"""Captured work: a CUDA graph for each size, all in one pool of memory, since no two run at once."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from headrace.engine.giving_back import forget_workspaces

Key = tuple[str, int]
Work = Callable[[], object]


class Graphs:
    """Replays what was captured under a key: a kind of work, and its size."""

    def __init__(self) -> None:
        self._captured: dict[Key, torch.cuda.CUDAGraph] = {}

    def capture(self, works: dict[Key, Work]) -> None:
        """Run each work once, so that its kernels are there, and record it; the largest should come first.

        Not by `torch.cuda.graph`, which collects garbage and empties the allocator's cache before each one.
        """
        pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            for key, work in works.items():
                work()
                stream.synchronize()
                forget_workspaces()  # so that cuBLAS takes this graph's from the pool, where nobody can free it
                self._captured[key] = _record(work, pool)
            forget_workspaces()
        torch.cuda.empty_cache()  # what the first runs took is another pool's

    def replay(self, key: Key) -> bool:
        """Launch what was captured under `key`; False if nothing was."""
        graph = self._captured.get(key)
        if graph is None:
            return False
        graph.replay()
        return True


def _record(work: Work, pool: Any) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    try:
        work()
    except BaseException:
        with suppress(RuntimeError):  # that the capture is broken is no news
            graph.capture_end()
        raise
    graph.capture_end()
    return graph
