"""How long a GGUF model file must be, computed from its header alone.

A GGUF file is: magic, version, counts; key-value pairs; tensor infos; padding; tensor data.
The file is not trusted: every count and length is bounded before it is used, nothing is
copied, and the work is limited whatever the header claims.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable

from inferq.engines.llamacpp.blocks import BLOCKS

MAGIC = b"GGUF"
MIN_VERSION, MAX_VERSION = 2, 3
FIXED_HEADER = 24

_MAX_PAIRS = 1 << 16
_MAX_TENSORS = 1 << 18
_MAX_STRINGS = 1 << 22
_MAX_DIMS = 4
_MAX_ELEMENTS = 1 << 62
_DEFAULT_ALIGNMENT = 32
_MAX_ALIGNMENT = 1 << 20

_UINT32, _STRING, _ARRAY = 4, 8, 9
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

Buffer = mmap.mmap | bytes

_u32: Callable[[Buffer, int], tuple[int]] = struct.Struct("<I").unpack_from
_u64: Callable[[Buffer, int], tuple[int]] = struct.Struct("<Q").unpack_from


class BadHeader(ValueError):
    """Raised when the header is cut off or says something that no valid file says."""


def required_size(data: Buffer) -> int:
    """Return the bytes that the file must have at least, given its first ``len(data)``.

    Tensors of a type that is not known here count as empty. Raises ``BadHeader``.
    """
    try:
        return _required_size(data)
    except struct.error:
        raise BadHeader("the file ends inside its header") from None


def _required_size(data: Buffer) -> int:
    if data[:4] != MAGIC:
        raise BadHeader("it does not begin with GGUF")
    (version,) = _u32(data, 4)
    if not MIN_VERSION <= version <= MAX_VERSION:
        raise BadHeader(f"GGUF version {version} is not supported")
    (tensors,), (pairs,) = _u64(data, 8), _u64(data, 16)
    _bound("tensors", tensors, _MAX_TENSORS)
    _bound("key-value pairs", pairs, _MAX_PAIRS)
    at, alignment = _skip_pairs(data, FIXED_HEADER, pairs)
    at, extent = _tensor_extent(data, at, tensors)
    start = at + -at % alignment
    return start + extent if tensors else at


def _bound(what: str, value: int, most: int) -> None:
    if value > most:
        raise BadHeader(f"its header claims {value} {what}")


def _skip_pairs(data: Buffer, at: int, pairs: int) -> tuple[int, int]:
    """Return where the tensor infos begin and how tensor data is aligned, in bytes."""
    alignment = _DEFAULT_ALIGNMENT
    strings = _MAX_STRINGS
    for _ in range(pairs):
        key_at = at + 8
        at = _skip_string(data, at)
        (kind,) = _u32(data, at)
        value_at = at + 4
        at, used = _skip_value(data, value_at, kind, strings)
        strings -= used
        if data[key_at : key_at + 18] == b"general.alignment\x04":
            (alignment,) = _u32(data, value_at)
            if not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
                raise BadHeader(f"its general.alignment is {alignment}")
    return at, alignment


def _skip_value(data: Buffer, at: int, kind: int, strings: int) -> tuple[int, int]:
    """Return the end of the value at ``at`` and how many strings it held."""
    if kind == _STRING:
        return _skip_string(data, at), 1
    if kind != _ARRAY:
        return _advance(data, at, _scalar(kind)), 0
    (item,), (count,) = _u32(data, at), _u64(data, at + 4)
    at += 12
    if item != _STRING:
        return _advance(data, at, count * _scalar(item)), 0
    _bound("strings", count, strings)
    end = len(data)
    # The vocabulary is here: the loop runs some hundred thousand times, so it is kept flat.
    for _ in range(count):
        at += 8 + _u64(data, at)[0]
        if at > end:
            raise BadHeader("the file ends inside its header")
    return at, count


def _tensor_extent(data: Buffer, at: int, tensors: int) -> tuple[int, int]:
    """Return the end of the tensor infos and how far the tensor data reaches beyond it."""
    extent = 0
    for _ in range(tensors):
        at = _skip_string(data, at)
        (dims,) = _u32(data, at)
        _bound("dimensions of a tensor", dims, _MAX_DIMS)
        at += 4
        elements = 1
        for _ in range(dims):
            elements *= _u64(data, at)[0]
            _bound("elements in a tensor", elements, _MAX_ELEMENTS)
            at += 8
        (kind,), (offset,) = _u32(data, at), _u64(data, at + 4)
        at += 12
        per_block, block_bytes = BLOCKS.get(kind, (1, 0))
        extent = max(extent, offset + elements // per_block * block_bytes)
    return at, extent


def _scalar(kind: int) -> int:
    if kind not in _SCALAR_BYTES:
        raise BadHeader(f"its header has a value of the unknown type {kind}")
    return _SCALAR_BYTES[kind]


def _skip_string(data: Buffer, at: int) -> int:
    return _advance(data, at + 8, _u64(data, at)[0])


def _advance(data: Buffer, at: int, by: int) -> int:
    if by > len(data) - at:
        raise BadHeader("the file ends inside its header")
    return at + by
