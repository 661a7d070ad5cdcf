"""A small HTTP server for metrics: bounded, and quiet."""

from __future__ import annotations

import logging
import socket
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from prometheus_client import CollectorRegistry

from inferq.monitoring.metrics.page import Pages
from inferq.version import __version__

logger = logging.getLogger(__name__)

#: Scrapes that are answered at once; others wait, up to the length of the backlog.
MOST_AT_ONCE = 8
BACKLOG = 128
#: A scraper that says or reads nothing for this long is dropped, seconds.
SILENCE_S = 5.0
#: At the end, scrapes that have begun may take so long, seconds.
LAST_S = 2.0


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: _Server
    timeout = SILENCE_S
    server_version = f"inferq/{__version__}"
    sys_version = ""

    def do_GET(self) -> None:
        """The metrics, at /metrics and /."""
        if self.path.partition("?")[0] not in ("/metrics", "/"):
            self.send_error(HTTPStatus.NOT_FOUND, "metrics are at /metrics")
            return
        page = self.server.pages.get(self.headers.get("Accept", ""))
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        self.wfile.write(page.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Scrapes are no news."""
        logger.debug(format, *args)


class _Server(ThreadingMixIn, TCPServer):
    """Threads, but no more than MOST_AT_ONCE."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = BACKLOG

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        self.pages = Pages(registry)
        self._free = threading.BoundedSemaphore(MOST_AT_ONCE)
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread, when one is free; not at all when none will be."""
        if not self._free.acquire(timeout=SILENCE_S):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and let the next one in."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that has gone is no error of ours."""
        del request
        logger.debug("a scrape from %s failed", client_address, exc_info=True)

    def wait_answered(self, timeout_s: float) -> None:
        """Wait until nobody is being answered."""
        give_up_at = time.monotonic() + timeout_s
        for _ in range(MOST_AT_ONCE):
            self._free.acquire(timeout=max(0.0, give_up_at - time.monotonic()))


class MetricsServer:
    """Serves a registry. The port is taken at once, answers come from ``start`` on.

    Raises OSError: the address cannot be listened on.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self._server = _Server(host, port, registry)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="inferq-metrics",
            daemon=True,
        )
        self._lock = threading.Lock()
        self._closed = False

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answer those who have asked, then free the port. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._answer_backlog()
        self._server.server_close()
        self._server.wait_answered(LAST_S)

    def _answer_backlog(self) -> None:
        """Those whose connection the system has accepted, but we have not."""
        self._server.socket.setblocking(False)
        for _ in range(BACKLOG):
            try:
                request, address = self._server.get_request()
            except OSError:
                return
            request.setblocking(True)
            self._server.process_request(request, address)
