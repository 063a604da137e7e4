"""Requests in the order of their keys: the one structure behind FCFS and priority, waiting and running."""

from bisect import bisect_left, insort
from collections.abc import Iterator

from headrace.engine.request import Request


def _key(request: Request) -> tuple[int, int, int]:
    return request.key


class RequestQueue:
    """A sorted list: inserting and removing move pointers only, which for thousands of entries costs microseconds."""

    def __init__(self) -> None:
        self._requests: list[Request] = []

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)

    @property
    def first(self) -> Request:
        """The request that comes first."""
        return self._requests[0]

    @property
    def last(self) -> Request:
        """The request that comes last."""
        return self._requests[-1]

    def add(self, request: Request) -> None:
        """Put a request in its place."""
        insort(self._requests, request, key=_key)

    def remove(self, request: Request) -> None:
        """Take a request out. Keys are unique, so its place is found by its key."""
        index = bisect_left(self._requests, request.key, key=_key)
        if self._requests[index] is not request:
            raise KeyError(request.uid)
        del self._requests[index]
