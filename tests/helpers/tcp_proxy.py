"""A connection to a server that can be cut: what an outage looks like to its client."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import sqlalchemy as sa


class Proxy:
    """Passes on what clients of 127.0.0.1:port and a server say to each other.

    Attributes:
        port: where it listens.
        up: False: it takes no connections.
        cut_after: told of what a client sends, before the server is; where it returns True, the
            server is told, and the client's connection is cut before an answer comes back.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.up = True
        self.cut_after: Callable[[bytes], bool] | None = None
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """End all connections."""
        for each in list(self._open):
            _end(each)

    def close(self) -> None:
        self.up = False
        _end(self._listener)
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if not self.up:
                    client.close()
                    continue
                server = socket.create_connection(self._server)
                self._open |= {client, server}
                for arguments in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, asks: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                cut = asks and self.cut_after is not None and self.cut_after(data)
                if cut:
                    _end(source)
                sink.sendall(data)
                if cut:
                    with contextlib.suppress(OSError):
                        sink.recv(65536)  # the server has answered, so it is done
                    break
        for each in (source, sink):
            _end(each)
            self._open.discard(each)


def _end(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()


@contextlib.contextmanager
def behind_proxy(url: str) -> Iterator[tuple[str, Proxy]]:
    """The URL of the same database by way of a proxy, and the proxy."""
    parsed = sa.make_url(url)
    proxy = Proxy(parsed.host or "127.0.0.1", parsed.port or 0)
    try:
        changed = parsed.set(host="127.0.0.1", port=proxy.port)
        yield changed.render_as_string(hide_password=False), proxy
    finally:
        proxy.close()
