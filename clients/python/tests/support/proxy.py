"""What lies between a client and an agent, and can fail."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Self


class Proxy:
    """Passes bytes on. `swallow` loses what the agent says without hanging up; `cut` hangs up."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._agent = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._swallowing: set[socket.socket] = set()

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()

    def swallow(self) -> None:
        """What the agent says on the connections that there are is lost from now on."""
        with self._lock:
            self._swallowing.update(self._sockets)

    def cut(self) -> None:
        """Hangs up on both sides of the connections that there are."""
        with self._lock:
            for each in self._sockets:
                try:
                    each.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                agent = socket.create_connection(self._agent)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._sockets += [client, agent]
            for source, sink in ((client, agent), (agent, client)):
                thread = threading.Thread(target=self._pass_on, args=(source, sink, source is agent))
                thread.start()
                self._threads.append(thread)

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        try:
            while data := source.recv(65_536):
                with self._lock:
                    is_lost = is_answer and source in self._swallowing
                if not is_lost:
                    sink.sendall(data)
        except OSError:
            pass
        for each in (source, sink):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
