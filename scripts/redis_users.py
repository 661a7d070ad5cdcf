"""Writes deploy/redis/users.acl; with --check only says whether it is current."""

from __future__ import annotations

import sys
from pathlib import Path

from inferq.cluster.users import NAMES, lines

TARGET = Path(__file__).parent.parent / "deploy" / "redis" / "users.acl"
HEAD = """\
# Users of Redis, one for each part, with the least rights that work; see docs/security.md.
# deploy/redis/start.sh puts topic, database and hashes of passwords in the places between @.
# Generated: scripts/redis_users.py
"""


def main() -> int:
    """Write or compare."""
    hashes = {name: f"@{name}@" for name in NAMES}
    text = HEAD + "".join(f"{line}\n" for line in lines(hashes, "@topic@", "@database@"))
    if "--check" in sys.argv[1:]:
        if TARGET.read_text() == text:
            return 0
        sys.stderr.write(f"{TARGET.name} is out of date: run scripts/redis_users.py\n")
        return 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
