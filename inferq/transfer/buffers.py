"""Memory that holds a KV cache, and its checksum."""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref

import xxhash

#: With these nobody can shorten the file under a mapping, whose reader would be killed by it.
_SEALS = 0x2 | 0x4  # F_SEAL_SHRINK, F_SEAL_GROW


class Buffer:
    """``nbytes`` of memory, freed with its last reference.

    A shared one is a memfd: a file without a name, whose descriptor ``fd`` can be given to
    another process, and that is gone with the last process that has it. It is mapped only while
    it is used, so that it costs one descriptor.
    """

    def __init__(self, nbytes: int, *, shared: bool) -> None:
        """Raises OSError or MemoryError when there is no memory or no descriptor."""
        self.nbytes = nbytes
        self.fd: int | None = None
        self._private = None if shared else allocate(nbytes)
        if shared:
            self.fd = fd = os.memfd_create("inferq-kv", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            weakref.finalize(self, os.close, fd)
            os.ftruncate(fd, max(1, nbytes))
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)

    def view(self) -> memoryview:
        """The memory. It stays while the view is referenced."""
        if self._private is not None:
            return self._private
        assert self.fd is not None
        return memoryview(mmap.mmap(self.fd, max(1, self.nbytes)))[: self.nbytes]


def has_shared_buffers() -> bool:
    """Whether this system has memfd, and lets this process use it."""
    if not hasattr(os, "memfd_create"):
        return False
    try:
        Buffer(1, shared=True)
    except OSError:
        return False
    return True


def allocate(nbytes: int) -> memoryview:
    """Fresh memory of this process."""
    # An anonymous mapping is zeroed page by page when it is first touched, a bytearray at once.
    return memoryview(mmap.mmap(-1, max(1, nbytes), flags=mmap.MAP_PRIVATE))[:nbytes]


def map_received(fd: int, nbytes: int) -> memoryview:
    """Map a memfd that another process has filled; what is written to it stays here.

    Raises:
        OSError: it is no memfd, not sealed, or not ``nbytes`` long.
    """
    if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
        raise OSError("the descriptor is not sealed")
    if os.fstat(fd).st_size != max(1, nbytes):
        raise OSError("the descriptor has another size")
    return memoryview(mmap.mmap(fd, max(1, nbytes), flags=mmap.MAP_PRIVATE))[:nbytes]


def checksum(data: memoryview) -> str:
    """XXH3 with 128 bits: finds damage, not malice."""
    return xxhash.xxh3_128_hexdigest(data)
