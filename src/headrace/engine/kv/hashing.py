"""The hash chain that names the content of a full KV block: its own tokens and everything before them.

Keyed with a secret of this engine, so that nobody can prepare two prompts that collide; seeded with what else the
content depends on (the tenant's salt, later the adapter), so that such requests never see each other's blocks.
"""

import hashlib
import secrets
from array import array

DIGEST_BYTES = 16


class BlockHasher:
    """Names blocks of `block_size` tokens."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self._key = secrets.token_bytes(32)

    def seed(self, salt: str) -> bytes:
        """What the chain of a request starts from."""
        return self._digest(salt.encode())

    def extend(self, chain: list[bytes], seed: bytes, tokens: list[int], num_tokens: int) -> None:
        """Append the hashes of the blocks that the first `num_tokens` fill and that `chain` does not have yet."""
        size = self.block_size
        for index in range(len(chain), num_tokens // size):
            before = chain[-1] if chain else seed
            chain.append(self._digest(before + array("i", tokens[index * size : (index + 1) * size]).tobytes()))

    def _digest(self, data: bytes) -> bytes:
        return hashlib.blake2b(data, digest_size=DIGEST_BYTES, key=self._key).digest()
