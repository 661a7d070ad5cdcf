"""``inferq``: all commands. Most are sub-commands of ``celery -A inferq``, too."""

from __future__ import annotations

import click

from inferq.commands.asking import cancel, request, status, submit
from inferq.commands.dead import dead
from inferq.commands.doctor import doctor
from inferq.commands.looking import nodes, queues
from inferq.commands.reset import reset
from inferq.commands.settings import settings
from inferq.commands.steering import drain, resume, role, shards
from inferq.commands.top import top
from inferq.version import __version__

#: Both here and there. Celery's own commands win over those of the same name: ``status``.
SHARED = (
    nodes,
    queues,
    top,
    submit,
    cancel,
    drain,
    resume,
    role,
    dead,
    reset,
    settings,
    shards,
    doctor,
)
ALL = (*SHARED, status)
#: Entry points of ``celery.commands``.
CELERY = (*SHARED, request)


@click.group()
@click.version_option(__version__, prog_name="inferq")
def cli() -> None:
    """Look at, steer and use a topic of inferq's nodes.

    Where it is and what it is called is said by settings: environment, .env, inferq.toml.
    """


for member in ALL:
    cli.add_command(member)


def main() -> None:
    """What the script ``inferq`` runs."""
    cli(prog_name="inferq")
