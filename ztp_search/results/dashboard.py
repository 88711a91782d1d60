"""The Optuna dashboard on a study's storage: on loopback, and read-only unless told otherwise.

optuna-dashboard has no authentication, and one DELETE removes a study, so anything that is no
reading is refused in front of it.
"""

from __future__ import annotations

import socketserver
import sys
import wsgiref.simple_server
from collections.abc import Callable, Iterable
from typing import Any

from ztp_search.errors import ZtpError
from ztp_search.study import StudyReader, dashboard_storage

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
READING = frozenset({"GET", "HEAD", "OPTIONS"})


class _Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class _Handler(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """A line per request is no news."""


def serve(
    storage: str, host: str, port: int, *, study: str | None = None, allow_edit: bool = False
) -> None:
    """Serve until interrupted. Raises ZtpError without optuna-dashboard or where the port is taken.

    storage: URL. host: address to listen on; anything but loopback is open to the network.
    study: the one whose page is announced (None: the list of all). Raises StudyError without it.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError:
        raise ZtpError(
            "the dashboard needs optuna-dashboard; install it with: pip install "
            "'ztp-search[dashboard]'"
        ) from None
    page = ""
    if study is not None:
        with StudyReader.open(storage, study) as stored:
            page = f"dashboard/studies/{stored.id}"
    application: WSGI = wsgi(dashboard_storage(storage))
    if not allow_edit:
        application = read_only(application)
    try:
        server = wsgiref.simple_server.make_server(
            host, port, application, server_class=_Server, handler_class=_Handler
        )
    except OSError as error:
        raise ZtpError(
            f"cannot listen on {host}:{port} ({error.strerror}); use another `port`"
        ) from None
    with server:
        mode = "editable by every visitor" if allow_edit else "read-only"
        print(f"Optuna dashboard ({mode}): http://{host}:{server.server_port}/{page}"
              "  Ctrl-C ends it", file=sys.stderr, flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("dashboard ended", file=sys.stderr)


def read_only(application: WSGI) -> WSGI:
    """Let reading requests through; answer all others with 403 and the reason."""

    def guard(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in READING:
            return application(environ, start_response)
        body = b'{"reason": "this dashboard is read-only; start it with --allow-edit to change"}'
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response("403 Forbidden", headers)
        return [body]

    return guard
