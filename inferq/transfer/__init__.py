"""KV caches on their way from a prefill node to a decode node; never inside a task message."""

from __future__ import annotations

from inferq.settings import Settings
from inferq.transfer.base import Fetched, Kept, Offer, Transfer
from inferq.transfer.memory import MemoryTransfer
from inferq.transfer.sockets import SocketTransfer

__all__ = ["Fetched", "Kept", "Offer", "Transfer", "create_transfer"]


def create_transfer(settings: Settings) -> Transfer:
    """What the settings describe, not yet started: by sockets in splitwise mode, else in memory.

    Raises:
        SettingsError: an address is wrong, or a network has no token.
    """
    options = settings.transfer
    if settings.scheduler_name == "splitwise":
        return SocketTransfer(options)
    return MemoryTransfer(
        max_bytes=options.max_bytes, max_caches=options.max_caches, keep_s=options.keep_s
    )
