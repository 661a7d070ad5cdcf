"""A worker in a thread of this process: the same loop, pool and bootsteps as any other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from celery.exceptions import WorkerShutdown, WorkerTerminate
from celery.worker.worker import WorkController

from inferq.app import InferqApp
from inferq.engines.base import Engine
from inferq.transport.broker import Broker

logger = logging.getLogger(__name__)


class EmbeddedWorker:
    """Starts and stops one Celery worker on an application with a memory broker."""

    def __init__(
        self,
        app: InferqApp,
        broker: Broker,
        name: str,
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._app = app
        self._on_crash = on_crash
        self._broker = broker
        self._controller: Any = WorkController(
            app=app,
            hostname=name,
            loglevel="WARNING",
            ready_callback=self._on_ready,
            use_eventloop=False,
            # Nobody else is on this broker to hear or send them.
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        self._thread = threading.Thread(target=self._run, name=f"inferq-{name}", daemon=True)
        self._settled = threading.Event()
        self._error: BaseException | None = None

    def start(self) -> None:
        """Start, and wait until requests are taken.

        Raises:
            EngineStartError: the engine cannot start.
        """
        self._thread.start()
        self._settled.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    def stop(self) -> None:
        """Stop at once; what runs is dropped."""
        if self._thread.is_alive():
            self._controller.terminate()
            self._broker.wake()
            self._thread.join()

    def cancel(self, request_id: str) -> bool:
        """Terminate a running task; Celery reports it as revoked."""
        return bool(self._controller.pool.terminate_task(request_id))

    @property
    def engine(self) -> Engine:
        """The running engine."""
        return self._app.node.engine

    def _on_ready(self, consumer: Any) -> None:
        del consumer
        self._settled.set()

    def _run(self) -> None:
        controller = self._controller
        try:
            controller.blueprint.start(controller)
        except (WorkerShutdown, WorkerTerminate):
            controller.terminate()
        except BaseException as exc:  # noqa: BLE001 - handed to the thread that waits in start()
            controller.terminate()
            self._report(exc)
        finally:
            self._settled.set()

    def _report(self, error: BaseException) -> None:
        """To the thread that waits in ``start``, or, later, to the owner."""
        if not self._settled.is_set():
            self._error = error
            return
        logger.critical("the worker of this client has crashed", exc_info=error)
        self._on_crash(error)
