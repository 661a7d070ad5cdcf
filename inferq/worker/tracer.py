"""Runs an ``async def`` task the way Celery's own tracer runs a plain one.

Celery 5 would take the coroutine for the task's result. The states, signals, callbacks and
backend calls here are those of ``celery.app.trace.build_tracer``, in the same order.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery import Task, canvas, signals, states
from celery.app.task import Context
from celery.app.trace import IGNORE_STATES, IGNORED, REJECTED, TraceInfo
from celery.exceptions import Ignore, InvalidTaskError, Reject, Retry
from celery.utils.saferepr import saferepr

logger = logging.getLogger(__name__)
#: Where Celery says that a task was ignored.
celery_logger = logging.getLogger("celery.app.trace")
current_context: ContextVar[Context | None] = ContextVar("inferq_task_context", default=None)


class Traced(NamedTuple):
    """What Celery's request handlers want of a finished task."""

    failed: int
    result: Any
    runtime_s: float


async def trace(task: Task, task_id: str, request: dict[str, Any], *, with_repr: bool) -> Traced:
    """Run the task for one message.

    ``request`` is the message as Celery's worker read it; with ``with_repr`` the result says
    how the return value looks, which only events need.
    """
    started = time.monotonic()
    args, kwargs = request["args"], request["kwargs"]
    context = Context(request, called_directly=False, args=args, kwargs=kwargs)
    token = current_context.set(context)
    signals.task_prerun.send(sender=task, task_id=task_id, task=task, args=args, kwargs=kwargs)
    state, value = states.FAILURE, None
    try:
        info, value = await _run(task, task_id, context)
        state = info.state if info is not None else states.SUCCESS
        runtime_s = time.monotonic() - started
        if info is None:
            _call_hook(task.on_success, value, task_id, args, kwargs)
            signals.task_success.send(sender=task, result=value)
        if state not in IGNORE_STATES:
            outcome = value if info is None else info.retval
            _call_hook(task.after_return, state, outcome, task_id, args, kwargs, None)
        if info is not None:
            return Traced(1, value, runtime_s)
        return Traced(0, saferepr(value, task.resultrepr_maxsize) if with_repr else "", runtime_s)
    finally:
        signals.task_postrun.send(
            sender=task,
            task_id=task_id,
            task=task,
            args=args,
            kwargs=kwargs,
            retval=value,
            state=state,
        )
        current_context.reset(token)


async def _run(task: Task, task_id: str, context: Context) -> tuple[TraceInfo | None, Any]:
    """The task's value, or the state it ended in with what Celery calls its ``R``."""
    ignore_result = vars(context).get("ignore_result")  # the class says False
    if ignore_result is None:
        ignore_result = task.ignore_result
    try:
        if not hasattr(context.kwargs, "items"):
            raise InvalidTaskError("Task keyword arguments is not a mapping")
        if task.track_started and not ignore_result:
            task.backend.store_result(task_id, {}, states.STARTED, request=context)
        task.before_start(task_id, context.args, context.kwargs)
        value = await task.run(*context.args, **context.kwargs)
        _send_followers(task, task_id, context, value)
        if not ignore_result or context.chord:
            task.backend.mark_as_done(task_id, value, context, not ignore_result)
    except Reject as exc:
        info = TraceInfo(REJECTED, exc)
        info.handle_reject(task, context)
        return info, ExceptionInfo(internal=True)
    except Ignore as exc:
        info = TraceInfo(IGNORED, exc)
        if celery_logger.isEnabledFor(logging.INFO):
            info.handle_ignore(task, context)
        return info, _Untraced(exc)
    except Exception as exc:  # noqa: BLE001 - whatever a task raises is its failure
        info = TraceInfo(states.RETRY if isinstance(exc, Retry) else states.FAILURE, exc)
        return info, info.handle_error_state(
            task, context, eager=False, call_errbacks=not isinstance(exc, Retry)
        )
    return None, value


class _Untraced(ExceptionInfo):  # type: ignore[misc]
    """An exception that is no error. Writing down its traceback would cost more than the task."""

    internal = True
    traceback = ""
    tb = None

    def __init__(self, exc: BaseException) -> None:
        self.type = type(exc)
        self.exception = ExceptionWithTraceback(exc, "")


def _call_hook(hook: Callable[..., Any], *args: Any) -> None:
    """Call a task's own handler; the outcome is stored, so its error must not change it."""
    try:
        hook(*args)
    except Exception:
        logger.exception("%r failed", hook)


def _send_followers(task: Task, task_id: str, context: Context, value: Any) -> None:
    """Send what was linked or chained to the task, as Celery does before it stores a result."""
    options = {"parent_id": task_id, "root_id": context.root_id or task_id}
    for callback in context.callbacks or ():
        canvas.maybe_signature(callback, app=task.app).apply_async((value,), **options)
    if context.chain:
        following = canvas.maybe_signature(context.chain[-1], app=task.app)
        following.apply_async((value,), chain=context.chain[:-1], **options)
