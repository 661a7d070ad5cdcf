"""Giving KV caches to the nodes that ask for them."""

from __future__ import annotations

import hmac
import logging
import secrets
import selectors
import socket
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from inferq.transfer import wire
from inferq.transfer.buffers import Buffer
from inferq.transfer.fetching import Limits
from inferq.transfer.store import Cut, Entry, Store
from inferq.transfer.wire import Broken, Proofs, Wire

logger = logging.getLogger(__name__)

#: How long to wait when the system gives no connection, seconds.
_PAUSE_S = 0.02


class Server:
    """Answers on its listening sockets, each connection in a thread, at most ``most`` of them.

    When there are as many, the oldest one that has not proved anything yet gives way: whoever
    only knocks cannot shut others out. A peer that has proved itself stays, and new ones wait in
    the backlog.
    """

    def __init__(
        self, store: Store, limits: Limits, listeners: list[socket.socket], most: int
    ) -> None:
        self._store = store
        self._limits = limits
        self._listeners = listeners
        for listener in listeners:
            # A peer may have left between the selector's word and accept.
            listener.setblocking(False)
        self._most = most
        self._changed = threading.Condition()
        self._strangers: OrderedDict[socket.socket, None] = OrderedDict()
        self._peers: set[socket.socket] = set()
        self._stopping = False
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="inferq-transfer-peer")
        self._poked, self._poke = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, name="inferq-transfer", daemon=True)

    def start(self) -> None:
        """Accept from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Close everything, and wait for all threads; blocks for a moment."""
        with self._changed:
            self._stopping = True
            for sock in (*self._strangers, *self._peers):
                wire.shut(sock)
            self._changed.notify_all()
        self._poke.close()
        self._thread.join()
        self._threads.shutdown()
        for sock in (*self._listeners, self._poked):
            sock.close()

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            for listener in (*self._listeners, self._poked):
                selector.register(listener, selectors.EVENT_READ)
            while self._has_room():
                key, _ = selector.select()[0]
                if key.fileobj is not self._poked:
                    assert isinstance(key.fileobj, socket.socket)
                    self._welcome(key.fileobj)

    def _has_room(self) -> bool:
        """Wait while only peers are connected, and as many as may be; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or len(self._peers) < self._most)
            return not self._stopping

    def _welcome(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError as exc:
            # The peer has left, or there are no descriptors for the moment.
            logger.debug("a connection could not be accepted: %s", exc)
            time.sleep(_PAUSE_S)
            return
        with self._changed:
            if self._stopping:
                sock.close()
                return
            if self._strangers and len(self._strangers) + len(self._peers) >= self._most:
                oldest, _ = self._strangers.popitem(last=False)
                wire.shut(oldest)
            self._strangers[sock] = None
        try:
            self._threads.submit(self._serve, sock)
        except RuntimeError:
            logger.warning("no thread for a connection")
            self._forget(sock)

    def _serve(self, sock: socket.socket) -> None:
        talk = Wire(sock, self._limits.silence_s, self._limits.silence_s)
        try:
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._answer(talk)
        except OSError as exc:
            logger.debug("a transfer ended early: %s", exc)
        finally:
            self._forget(sock)

    def _forget(self, sock: socket.socket) -> None:
        # Closed last and by its own thread: whoever shuts a socket of these sets holds the lock,
        # so it cannot hit a descriptor that means something else by then.
        with self._changed:
            self._strangers.pop(sock, None)
            self._peers.discard(sock)
            self._changed.notify_all()
        sock.close()

    def _answer(self, talk: Wire) -> None:
        nonce = secrets.token_bytes(wire.NONCE_BYTES)
        talk.send(nonce)
        said = talk.read(wire.HELLO.size + wire.PROOF_BYTES)
        hello, proof = said[: wire.HELLO.size], said[wire.HELLO.size :]
        magic, verb, name, receiver, _ = wire.HELLO.unpack(hello)
        if magic != wire.MAGIC or verb not in (wire.FETCH, wire.RELEASE):
            raise Broken("the peer does not speak this protocol")
        entry = self._store.find(name)
        if entry is None:
            talk.send(wire.GONE)
            return
        proofs = Proofs(self._limits.token, entry.key, nonce + hello)
        if not hmac.compare_digest(proof, proofs.receiver()):
            talk.send(wire.REFUSED)
            logger.warning("a node without the right transfer.token asked for a KV cache")
            return
        if not self._acquaint(talk.sock):
            return
        yes = wire.YES + proofs.sender()
        if verb == wire.RELEASE:
            self._store.remove(entry)
            talk.send(yes)
            return
        cut = partial(wire.shut, talk.sock)
        if not self._store.lend(entry, receiver, cut):
            talk.send(wire.BUSY if self._store.find(name) else wire.GONE)
            return
        self._give(talk, entry, yes, cut)

    def _acquaint(self, sock: socket.socket) -> bool:
        """It is a peer from now on; False when it has had to give way."""
        with self._changed:
            if sock not in self._strangers:
                return False
            del self._strangers[sock]
            self._peers.add(sock)
            return True

    def _give(self, talk: Wire, entry: Entry, yes: bytes, cut: Cut) -> None:
        """Send it, and free it when the receiver says that it has it, whole."""
        arrived = False
        try:
            talk.limit(self._limits.total_s)
            self._send(talk, entry.buffer, yes)
            arrived = talk.read(1) == wire.ARRIVED
        finally:
            if arrived:
                self._store.remove(entry)
            else:
                self._store.give_back(entry, cut)

    def _send(self, talk: Wire, buffer: Buffer, yes: bytes) -> None:
        answer = yes + wire.SIZE.pack(buffer.nbytes)
        if talk.sock.family == socket.AF_UNIX and buffer.fd is not None:
            talk.send_descriptor(answer, buffer.fd)
        else:
            talk.send(answer)
            if buffer.fd is not None:
                talk.send_file(buffer.fd, buffer.nbytes)
            else:
                talk.send_all(buffer.view())
