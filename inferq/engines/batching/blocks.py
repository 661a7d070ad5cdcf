"""Block accounting: who holds how many blocks of KV cache."""

from __future__ import annotations


def blocks_for(tokens: int, block_size: int) -> int:
    """Blocks that hold ``tokens`` tokens."""
    return -(-tokens // block_size)


class BlockPool:
    """Counts blocks. What is free is derived from what is held, so it cannot drift."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._held: dict[int, int] = {}
        self._used = 0

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return self.total - self._used

    def held(self, owner: int) -> int:
        """Blocks that ``owner`` holds."""
        return self._held.get(owner, 0)

    def grow(self, owner: int, blocks: int) -> bool:
        """Let ``owner`` hold at least ``blocks``; False, and no change, when too few are free."""
        extra = blocks - self.held(owner)
        if extra > self.free:
            return False
        if extra > 0:
            self._held[owner] = blocks
            self._used += extra
        return True

    def release(self, owner: int) -> None:
        """Take back all that ``owner`` holds."""
        self._used -= self._held.pop(owner, 0)
