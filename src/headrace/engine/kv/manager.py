"""The KV cache as the scheduler sees it: give a sequence room, share prefixes, copy on write, take everything back."""

from headrace.engine.kv.block_pool import BlockPool
from headrace.engine.kv.hashing import BlockHasher
from headrace.engine.request import Request


class KVManager:
    """Hands the pool's blocks to requests. A block is written only by a request that alone holds it."""

    def __init__(self, num_blocks: int, block_size: int, *, enable_prefix_caching: bool = True) -> None:
        self.block_size = block_size
        self.pool = BlockPool(num_blocks)
        self.hasher = BlockHasher(block_size)
        self.enable_prefix_caching = enable_prefix_caching
        self.queries = 0
        self.hits = 0
        self._copies: dict[int, int] = {}  # target -> source

    def reset(self) -> None:
        """Take every block back, whoever holds it, and forget its content."""
        self.pool = BlockPool(self.pool.num_blocks)
        self._copies = {}

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that a sequence of this many tokens takes."""
        return -(-num_tokens // self.block_size)

    def match_prefix(self, request: Request) -> None:
        """Take the cached blocks that the request's tokens begin with; at least its last token stays to compute."""
        if not self._looks_up(request):
            return
        usable = len(request.tokens) - 1
        self.hasher.extend(request.hashes, request.hash_seed, request.tokens, len(request.tokens))
        for content in request.hashes[: usable // self.block_size]:
            block = self.pool.find(content)
            if block is None:
                break
            self.pool.share(block)
            request.blocks.append(block)
        request.num_remembered = len(request.blocks)
        request.num_computed = len(request.blocks) * self.block_size

    def count_match(self, request: Request) -> None:
        """Account the prefix cache's part in a request, in tokens, when it is admitted for the first time."""
        if request.num_cached is not None:
            return
        request.num_cached = request.num_computed
        if self._looks_up(request):
            self.queries += len(request.tokens)
            self.hits += request.num_computed

    def blocks_missing(self, request: Request, num_tokens: int) -> int:
        """Free blocks that it takes until the request's tokens up to `num_tokens` can be written."""
        return self._missing(request, num_tokens, self._shared_block(request))

    def allocate(self, request: Request, num_tokens: int) -> bool:
        """Make room for tokens `num_computed` to `num_tokens`; False, with nothing changed, if there is none."""
        if self._has_room(request, num_tokens):
            return True
        index = self._shared_block(request)
        if self._missing(request, num_tokens, index) > self.pool.num_free:
            return False
        if index is not None:
            source, target = request.blocks[index], self._take_target()
            self._copies[target] = source
            request.blocks[index] = target
            request.block_replaced = True
            self.pool.release(source)
        while len(request.blocks) * self.block_size < num_tokens:
            request.blocks.append(self.pool.take())
        return True

    def capacity(self, request: Request) -> int:
        """How many tokens a request can have before it must `allocate` for the next one; 0 if it must for that."""
        index = request.num_computed // self.block_size
        if index < len(request.blocks) and self.pool.writable(request.blocks[index]):
            return len(request.blocks) * self.block_size
        return 0

    def take_copies(self) -> list[tuple[int, int]]:
        """The (source, target) block copies that the next step must make before it writes; no block is in both."""
        copies, self._copies = self._copies, {}
        return [(source, target) for target, source in copies.items()]

    def fork(self, parent: Request, child: Request, num_tokens: int) -> None:
        """Give `child` the parent's first `num_tokens` computed tokens, sharing every block, the partial one too."""
        child.blocks = parent.blocks[: self.blocks_for(num_tokens)]
        for block in child.blocks:
            self.pool.share(block)
        child.num_computed = num_tokens
        child.forked = True
        child.num_cached, child.queue_seconds = parent.num_cached, parent.queue_seconds
        child.num_remembered = num_tokens // self.block_size
        child.hashes = parent.hashes[: child.num_remembered]

    def remember(self, request: Request, num_written: int) -> None:
        """Let the full blocks among the request's first `num_written` tokens be found by others."""
        full = num_written // self.block_size
        if not self.enable_prefix_caching or full <= request.num_remembered:
            return
        self.hasher.extend(request.hashes, request.hash_seed, request.tokens, full * self.block_size)
        for index in range(request.num_remembered, full):
            self.pool.remember(request.blocks[index], request.hashes[index])
        request.num_remembered = full

    def free(self, request: Request) -> None:
        """Take back every block, the last first, so that the beginning of a prefix is the last to be reused."""
        while request.blocks:
            self.pool.release(request.blocks.pop())
        request.num_computed = request.num_remembered = 0

    def _take_target(self) -> int:
        """A free block to copy to, which no copy of the same step reads: copies run in any order."""
        sources, unread = set(self._copies.values()), []
        while (block := self.pool.take()) in sources:
            unread.append(block)
        for each in unread:
            self.pool.release(each)
        return block

    def _num_unread(self) -> int:
        """Free blocks that the next step still copies from, since who held them was preempted meanwhile."""
        return sum(self.pool.is_free(source) for source in set(self._copies.values()))

    def _missing(self, request: Request, num_tokens: int, shared: int | None) -> int:
        missing = self.blocks_for(num_tokens) - len(request.blocks)
        return missing if shared is None else missing + 1 + self._num_unread()

    def _looks_up(self, request: Request) -> bool:
        return self.enable_prefix_caching and request.params.reads_prefix_cache

    def _has_room(self, request: Request, num_tokens: int) -> bool:
        """Whether nothing is missing: so it is for most sequences in most steps."""
        blocks, size = request.blocks, self.block_size
        index = request.num_computed // size
        return index < len(blocks) and num_tokens <= len(blocks) * size and self.pool.writable(blocks[index])

    def _shared_block(self, request: Request) -> int | None:
        """The index of the block that the next token would be written to, if that block may not be written."""
        index = request.num_computed // self.block_size
        if index < len(request.blocks) and not self.pool.writable(request.blocks[index]):
            return index
        return None
