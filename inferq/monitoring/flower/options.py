"""Options of ours on Flower's command line, in its configuration file and environment."""

from __future__ import annotations

from tornado.options import define, options

OPERATORS = "inferq_operators"

if OPERATORS not in options:
    define(
        OPERATORS,
        type=str,
        default=[],
        multiple=True,
        help="who may act, by user name or e-mail address; others only look. Default: every user",
    )


def operators() -> frozenset[str]:
    """Who may act; empty: every user."""
    return frozenset(name.strip() for name in options[OPERATORS] if name.strip())
