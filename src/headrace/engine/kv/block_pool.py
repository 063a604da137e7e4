"""The blocks of the KV cache: who holds them, which cached content they keep, and which is reused first.

A block is free when nobody holds it. A free block keeps its content, and can be found by its hash, until it is taken
for something else. Free blocks form a doubly linked list threaded through two arrays, least recently released first:
taking from its head and releasing to its tail are O(1), and so is pulling a block out of its middle when a cached
prefix is hit, which a deque cannot do. Blocks whose content has no name go to the head: reusing them first loses
nothing, and keeps memory that was never touched untouched.
"""

from headrace.core.errors import ErrorKind, HeadraceError


class BlockPool:
    """`num_blocks` blocks, named 0 to num_blocks - 1. Invariant: held + free = all, and a free block has no holder."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.num_free = num_blocks
        self._holders = [0] * num_blocks
        self._hash_of: list[bytes | None] = [None] * num_blocks
        self._block_of: dict[bytes, int] = {}
        self._end = num_blocks  # the list's sentinel: its next is the head, its previous the tail
        self._next: list[int] = [*range(1, num_blocks + 1), 0]
        self._previous: list[int] = [num_blocks, *range(num_blocks)]

    def take(self) -> int:
        """The least recently used free block, its old content forgotten. Raises when none is free."""
        block = self._next[self._end]
        if block == self._end:
            raise HeadraceError("No KV block is free", kind=ErrorKind.INTERNAL)
        self._unlink(block)
        self._forget(block)
        self._holders[block] = 1
        return block

    def share(self, block: int) -> None:
        """One more holder; a free block comes off the free list with its content."""
        if self._holders[block] == 0:
            self._unlink(block)
        self._holders[block] += 1

    def release(self, block: int) -> None:
        """One holder fewer; without any, the block is free: the last to be reused, or the first if nothing names it."""
        if self._holders[block] <= 0:
            raise HeadraceError(f"KV block {block} was released more often than taken", kind=ErrorKind.INTERNAL)
        self._holders[block] -= 1
        if self._holders[block] == 0:
            self._link(block, after=self._previous[self._end] if self._hash_of[block] else self._end)

    def writable(self, block: int) -> bool:
        """Whether the one who holds it may write into it: nobody shares it and no hash promises its content."""
        return self._holders[block] == 1 and self._hash_of[block] is None

    def is_free(self, block: int) -> bool:
        """Whether nobody holds it."""
        return self._holders[block] == 0

    def remember(self, block: int, content: bytes) -> None:
        """Let a full block be found by the hash of its content. The first block with a content keeps the name."""
        if content not in self._block_of and self._hash_of[block] is None:
            self._block_of[content] = block
            self._hash_of[block] = content

    def find(self, content: bytes) -> int | None:
        """The block, free or held, that has this content."""
        return self._block_of.get(content)

    def forget_all(self) -> None:
        """Forget the content of every block; who holds what stays."""
        self._block_of.clear()
        self._hash_of = [None] * self.num_blocks

    def _forget(self, block: int) -> None:
        content = self._hash_of[block]
        if content is not None:
            del self._block_of[content]
            self._hash_of[block] = None

    def _unlink(self, block: int) -> None:
        before, after = self._previous[block], self._next[block]
        self._next[before], self._previous[after] = after, before
        self.num_free -= 1

    def _link(self, block: int, after: int) -> None:
        before, after = after, self._next[after]
        self._next[before], self._previous[block] = block, before
        self._next[block], self._previous[after] = after, block
        self.num_free += 1
