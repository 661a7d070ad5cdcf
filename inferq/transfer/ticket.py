"""What a handoff says about a KV cache, and on which machine it was written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from inferq.errors import KvLost

Hex16 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Hex32 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_ADDRESS_LENGTH = 300


class Ticket(BaseModel):
    """Names a KV cache, lets its bearer have it, and says where it is and what it must be.

    ``host`` is where ``unix`` means something; ``tcp`` is host:port. Either may be missing.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, hide_input_in_errors=True)

    name: Hex16
    key: Hex32 = Field(repr=False)
    nbytes: int = Field(ge=0, alias="bytes")
    checksum: Hex16 = Field(alias="sum")
    host: Annotated[str, StringConstraints(max_length=64)] = ""
    unix: Annotated[str, StringConstraints(pattern=r"^$|^[0-9a-f]{32}$")] = ""
    tcp: Annotated[str, StringConstraints(max_length=_ADDRESS_LENGTH)] = ""

    @classmethod
    def parse(cls, kv: Mapping[str, Any], max_bytes: int) -> Ticket:
        """Read the ``kv`` of a handoff.

        Raises:
            KvLost: it is not one of ours, or larger than what may be fetched.
        """
        try:
            ticket = cls.model_validate(dict(kv))
        except ValidationError as exc:
            error = exc.errors(include_url=False, include_input=False, include_context=False)[0]
            field = ".".join(["handoff.kv", *map(str, error["loc"])])
            raise KvLost(f"{field}: {error['msg']}") from None
        if ticket.nbytes > max_bytes:
            raise KvLost(
                f"handoff.kv.bytes: {ticket.nbytes} exceed transfer.max_bytes, {max_bytes}"
            )
        return ticket


def host_identity() -> str:
    """Equal in two processes exactly when both reach the same abstract unix sockets.

    That is: the same boot of the same kernel, and the same network namespace. Names of hosts
    say neither. Empty where it cannot be known.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        namespace = os.readlink("/proc/self/ns/net")
    except OSError:
        return ""
    return hashlib.blake2b(f"{boot}/{namespace}".encode(), digest_size=16).hexdigest()


def split_address(address: str) -> tuple[str, int | None]:
    """``host:port``, ``[v6]:port`` or a host alone.

    Raises:
        ValueError: the port is no port.
    """
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        return address.strip("[]"), None
    number = int(port)
    if not 0 <= number <= 65535:
        raise ValueError(f"{number} is not a port")
    return host.strip("[]"), number


def join_address(host: str, port: int) -> str:
    """The reverse of ``split_address``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
