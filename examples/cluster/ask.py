"""Ask a running cluster, and print the answer as it comes.

    export INFERQ_SCHEDULER_URL=redis://127.0.0.1:6379/0
    python examples/cluster/ask.py "Who are you?"

Nodes are started with ``celery -A inferq worker``. With ``--node gpu0@host`` the request goes to
that node's own queue; an idle node may steal it from there.
"""

import argparse
import os

from inferq import Client, Settings

parser = argparse.ArgumentParser()
parser.add_argument("prompt", nargs="?", default="What is the capital of France?")
parser.add_argument("--node", help="send to this node")
parser.add_argument(
    "--scheduler",
    choices=("global", "splitwise"),
    default=os.environ.get("INFERQ_SCHEDULER_NAME", "global"),
)
arguments = parser.parse_args()

with Client(Settings(scheduler_name=arguments.scheduler), node=arguments.node) as client:
    message = {"role": "user", "content": arguments.prompt}
    for output in client.stream(messages=[message], max_tokens=64):
        if output.restarted:  # its node was lost, and another one answers differently
            print("\n(once more:)")
        print(output.text, end="", flush=True)
    print()
