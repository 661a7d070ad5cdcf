"""Writes a file of users for Redis' ``aclfile``: ``python -m inferq.cluster.users --help``.

Each part has a user of its own, with the least rights that work, for one topic. Passwords come from
files; what is written are their SHA-256 hashes.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence

from inferq.cluster.rights import PARTS, rights_of
from inferq.settings.files import read_secret

ADMIN = "admin"
NAMES = (*PARTS, ADMIN)
_TOPIC = re.compile(r"[A-Za-z0-9_-]{1,64}")
HEAD = """\
# Users of Redis, one for each part, with the least rights that work; see docs/security.md.
# Nobody else gets in. `python -m inferq.cluster.users` writes such a file for a topic of your own.
"""


def lines(hashes: Mapping[str, str], topic: str, database: int | str) -> Iterator[str]:
    """The lines of the file; ``hashes``: of passwords, by the user's name."""
    yield "user default reset off"
    for name in NAMES:
        if name not in hashes:
            continue
        rules = (
            ["~*", "&*", "+@all"] if name == ADMIN else rights_of(name, topic, database).rules()  # type: ignore[arg-type]
        )
        yield f"user {name} reset on #{hashes[name]} {' '.join(rules)}"


def hash_of(password: str) -> str:
    """As access lists keep passwords."""
    return hashlib.sha256(password.encode()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the file."""
    parser = argparse.ArgumentParser(prog="python -m inferq.cluster.users", description=__doc__)
    parser.add_argument("--topic", default="default", help="whose keys and queues (default)")
    parser.add_argument("--database", type=int, default=0, help="number of the database (0)")
    parser.add_argument(
        "passwords", nargs="+", metavar="USER=FILE", help=f"USER: {', '.join(NAMES)}"
    )
    given = parser.parse_args(arguments)
    if not _TOPIC.fullmatch(given.topic):
        parser.error("--topic: letters, digits, _ and -, at most 64")
    hashes = {}
    for pair in given.passwords:
        name, _, path = pair.partition("=")
        if name not in NAMES:
            parser.error(f"{name!r}: there is no such user; there are {', '.join(NAMES)}")
        try:
            hashes[name] = hash_of(read_secret(path))
        except ValueError as exc:
            parser.error(f"{name}={path}: {exc}")
    sys.stdout.write(HEAD)
    for line in lines(hashes, given.topic, given.database):
        sys.stdout.write(f"{line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
