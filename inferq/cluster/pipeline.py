"""Several commands in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inferq.cluster.link import Link

Command = Sequence[Any]


def call_all(link: Link, commands: Sequence[Command]) -> list[Any]:
    """Send commands together; their answers, in order. They are not one atomic step.

    Raises:
        one of link.AWAY: Redis did not answer; which commands it has run is not known.
        redis.exceptions.ResponseError: it refused one of them; the connection is dropped.
    """
    if not commands:
        return []
    connection = link.connection
    try:
        packed = connection.pack_commands([tuple(command) for command in commands])
        connection.send_packed_command(packed, check_health=False)
        return [connection.read_response() for _ in commands]
    except BaseException:  # answers may still come: nobody may read them as other ones'
        link.close()
        raise
