"""What the server measures: the few lines of its Prometheus page that matter here."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import NamedTuple

from inferq.engines.openai.flavours import Gauges

_LINE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?[ \t]+(\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class ServerLoad(NamedTuple):
    """How busy the server is. None: it does not say.

    ``requests`` are running or waiting, from whomever they are. ``usage`` is the used share of
    the KV cache.
    """

    requests: int = 0
    usage: float | None = None
    total_blocks: int | None = None
    block_size: int | None = None


def read_load(page: str, gauges: Gauges) -> ServerLoad:
    """Read a metrics page; a server with several engines behind one address counts as one."""
    found: dict[str, list[tuple[float, dict[str, str]]]] = defaultdict(list)
    wanted = {*gauges[:2], *gauges.usage, gauges.tokens, gauges.config}
    for line in page.splitlines():
        match = _LINE.match(line)
        if match is None or match[1] not in wanted:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        if math.isfinite(value):
            found[match[1]].append((value, dict(_LABEL.findall(match[2] or ""))))
    requests = sum(value for name in gauges[:2] for value, _ in found[name])
    total, size = _blocks(found, gauges)
    return ServerLoad(max(0, round(requests)), _usage(found, gauges), total, size)


def _usage(found: dict[str, list[tuple[float, dict[str, str]]]], gauges: Gauges) -> float | None:
    for name in gauges.usage:
        values = [value for value, _ in found[name]]
        if values:
            return min(1.0, max(0.0, sum(values) / len(values)))
    return None


def _blocks(
    found: dict[str, list[tuple[float, dict[str, str]]]], gauges: Gauges
) -> tuple[int | None, int | None]:
    total, size = 0, None
    for _, labels in found[gauges.config]:
        total += _number(labels.get(gauges.blocks_label))
        size = _number(labels.get(gauges.size_label)) or size
    tokens = round(sum(value for value, _ in found[gauges.tokens]))
    if tokens > 0:
        # The size of a page is not told; a block of one token is what it counts in.
        return tokens, 1
    return total or None, size


def _number(label: str | None) -> int:
    return int(label) if label is not None and re.fullmatch(r"[0-9]{1,12}", label) else 0
