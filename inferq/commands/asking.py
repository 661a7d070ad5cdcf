"""``submit``, ``cancel`` and ``status``: one request, from the command line."""

from __future__ import annotations

import sys
from typing import Any

import click

from inferq.client import Client
from inferq.cluster.status import read_status
from inferq.cluster.stories import Stories, Story
from inferq.commands.call import DONE, NO, Call, Failure, command
from inferq.commands.printing import clean, clean_answer, duration, print_json, size
from inferq.errors import RequestEnded
from inferq.messages import Output, Status

#: A prompt from standard input is read to this length, bytes; more is an error.
MAX_PROMPT_BYTES = 64 * 1024 * 1024
_CANCELLED = "it was cancelled from the command line"
_INTERRUPTED = 130


@command("submit")
@click.argument("prompt", required=False)
@click.option("--max-tokens", type=int, metavar="N", help="Longest answer.")
@click.option("--temperature", type=float, metavar="X", help="0 is greedy.")
@click.option("--top-p", type=float, metavar="X", help="Share of the likeliest tokens.")
@click.option("--top-k", type=int, metavar="N", help="The N likeliest tokens; 0: all.")
@click.option("--seed", type=int, metavar="N", help="Of sampling.")
@click.option("--stop", multiple=True, metavar="TEXT", help="Ends the answer; repeatable.")
@click.option("--priority", type=int, metavar="N", help="0 goes first, 9 last.")
@click.option("--request-id", metavar="ID", help="An id of your own.")
@click.option("--chat", is_flag=True, help="The prompt is a user's message to a chat model.")
@click.option("--node", metavar="NAME", help="The node whose own queue takes it (global).")
def submit(
    call: Call,
    prompt: str | None,
    *,
    chat: bool,
    node: str | None,
    stop: tuple[str, ...],
    **given: Any,
) -> int:
    """Send PROMPT (or standard input) and print the answer as it comes.

    Ctrl-C cancels the request.
    """
    call.require_cluster()
    text = prompt if prompt not in (None, "-") else _read_prompt()
    fields = (
        {**given, "messages": [{"role": "user", "content": text}]}
        if chat
        else {**given, "prompt": text}
    )
    fields["stop"] = list(stop)
    try:
        with Client(call.settings, node=node) as client:
            return _stream(call, client, fields)
    except KeyboardInterrupt:
        click.echo("\ninferq: cancelled", err=True)
        return _INTERRUPTED


def _stream(call: Call, client: Client, fields: dict[str, Any]) -> int:
    handle = client.submit(**fields)
    try:
        for output in handle.stream():
            if not call.as_json:
                _print_output(output)
        result = handle.result()
    except RequestEnded as exc:
        if call.as_json:
            print_json({"request_id": exc.request_id, "error": exc.message, "code": exc.code})
        else:
            click.echo(f"inferq: {clean(str(exc), 600)}", err=True)
        return NO
    if call.as_json:
        print_json(result)
    else:
        click.echo()
    return DONE


def _print_output(output: Output) -> None:
    if output.restarted:
        click.echo("\n[its node was lost; the answer begins anew]", err=True)
    text = clean_answer(output.text) if sys.stdout.isatty() else output.text
    if text:
        sys.stdout.write(text.encode("utf-8", "replace").decode())
        sys.stdout.flush()


def _read_prompt() -> str:
    if sys.stdin.isatty():
        click.echo("inferq: the prompt, then Ctrl-D:", err=True)
    raw = sys.stdin.buffer.read(MAX_PROMPT_BYTES + 1)
    if len(raw) > MAX_PROMPT_BYTES:
        raise Failure(f"prompt: more than {MAX_PROMPT_BYTES} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Failure("prompt: standard input is no text in UTF-8") from None


@command("cancel")
@click.argument("request_id")
def cancel(call: Call, request_id: str) -> int:
    """End a live request, whoever has sent it; its producer is told."""
    with call.topic() as topic:
        was = topic.cancel(request_id, tell=True, message=_CANCELLED)
    if was == "unknown":
        text = f"{request_id}: no live request has this id"
    else:
        text = f"{request_id}: cancelled; it was {was}"
    call.answer({"request_id": request_id, "was": was}, text)
    return NO if was == "unknown" else DONE


def _status(call: Call, request_id: str) -> int:
    with call.topic() as topic:
        status = read_status(topic, request_id)
        story = Stories(topic).find(request_id) if status.state in ("ended", "unknown") else None
    if status.state == "unknown" and story is not None:
        status = Status("ended")
    if call.as_json:
        print_json({"request_id": request_id, **status._asdict(), "story": story})
    else:
        click.echo(clean(f"{request_id}: {_words(status)}", 400))
        for line in _tell(story) if story is not None else ():
            click.echo(f"  {clean(line, 200)}")
    return NO if status.state == "unknown" else DONE


_STATUS_HELP = "Where a request is, why it waits, or how it ended."
_REQUEST_ID = click.argument("request_id")
status = command("status", help=_STATUS_HELP)(_REQUEST_ID(_status))
#: ``celery status`` is Celery's own.
request = command("request", help=_STATUS_HELP)(_status)


def _words(status: Status) -> str:
    if status.state == "unknown":
        return "unknown: no live request has this id, nor one that has ended lately"
    words = [status.state]
    if status.state in ("queued", "running") and status.phase:
        words.append(f"for {status.phase}" if status.state == "queued" else f"in {status.phase}")
    if status.node:
        words.append(f"at {status.node}")
    if status.reason:
        words.append(f"({status.reason})")
    return " ".join(words)


def _tell(story: Story) -> list[str]:
    end = story.finish_reason + (f" [{story.error_code}]" if story.error_code else "")
    lines = [
        f"ended with {end or '-'} after {story.tokens} tokens, attempt {story.attempt}, "
        f"at {story.node or '-'}",
        f"waited {duration(story.queue_s)}, prefill {duration(story.prefill_s)}, "
        f"decode {duration(story.decode_s)}",
    ]
    if story.prefill_node:
        moved = f"prefilled at {story.prefill_node}"
        if story.protocol:
            moved += (
                f"; {size(story.kv_bytes)} of KV cache by {story.protocol} "
                f"in {duration(story.transfer_s)}"
            )
        lines.append(moved)
    return lines
