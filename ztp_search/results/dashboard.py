"""The Optuna dashboard on a study's storage: on loopback, and read-only unless told otherwise.

optuna-dashboard has no authentication, and one DELETE removes a study, so anything that is no
reading is refused in front of it.
"""

from __future__ import annotations

import errno
import os
import socket
import socketserver
import sys
import wsgiref.simple_server
from collections.abc import Callable, Iterable
from typing import Any

from ztp_search.errors import StudyError, ZtpError
from ztp_search.results.artifacts import TrialArtifacts, artifacts_of
from ztp_search.results.dashboard_api import (
    WSGI,
    StudyDocuments,
    can_be_quick,
    quick,
    study_asked_for,
)
from ztp_search.results.door import READING, check_host, guarded
from ztp_search.results.live import Live
from ztp_search.results.shipped import shipped
from ztp_search.study import StudyReader
from ztp_search.study.dashboard_storage import DashboardStorage

TOKEN = "ZTP_DASHBOARD_TOKEN"
"""The variable of the environment that holds what visitors are asked for."""


class _Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """A line per request is no news."""


def serve(
    storage: str,
    host: str,
    port: int,
    *,
    study: str | None = None,
    allow_edit: bool = False,
    behind_proxy: bool = False,
) -> None:
    """Serve until interrupted. Raises ZtpError without optuna-dashboard, where everybody would be
    let in, and where it cannot listen.

    storage: URL. host: address to listen on; off loopback it wants a token (`ZTP_DASHBOARD_TOKEN`)
    or `behind_proxy`: that a proxy before it asks for a password.
    study: the one whose note is announced (None: the one that was searched last, or the list of
    all where there is none of ours). Raises StudyError without it.
    """
    try:
        import optuna_dashboard  # noqa: F401
    except ImportError:
        raise ZtpError(
            "the dashboard needs optuna-dashboard; install it with: pip install "
            "'ztp-search[dashboard]'"
        ) from None
    token = os.environ.get(TOKEN) or None
    check_host(host, token, behind_proxy)
    number = _number(storage, study)
    page = "" if number is None else f"dashboard/studies/{number}/note"
    application = guarded(
        dashboard(storage, allow_edit=allow_edit, study=number), host, token, behind_proxy
    )
    server_class = _Server6 if ":" in host else _Server
    at = f"[{host}]" if ":" in host else host
    try:
        server = wsgiref.simple_server.make_server(
            host, port, application, server_class=server_class, handler_class=_Handler
        )
    except OSError as error:
        other = "port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "host"
        raise ZtpError(
            f"cannot listen on {at}:{port} ({error.strerror}); use another `{other}`"
        ) from None
    with server:
        mode = "editable by every visitor" if allow_edit else "read-only"
        print(f"Optuna dashboard ({mode}): http://{at}:{server.server_port}/{page}"
              "  Ctrl-C ends it", file=sys.stderr, flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("dashboard ended", file=sys.stderr)


def _number(storage: str, study: str | None) -> int | None:
    """Optuna's number of a study; None where none is asked for and there is none of ours."""
    try:
        with StudyReader.open(storage, study) as stored:
            return stored.id
    except StudyError:
        if study is not None:
            raise
        return None


def dashboard(storage: str, *, allow_edit: bool = False, study: int | None = None) -> WSGI:
    """The dashboard as a WSGI application.

    study: Optuna's number of one that is made ready before this returns.
    """
    import optuna_dashboard

    quickly = can_be_quick()
    looked_at = DashboardStorage(storage, artifacts_of, editable=allow_edit, whole=not quickly)
    store = TrialArtifacts(looked_at.reader)
    live = Live(looked_at)
    application = styled(optuna_dashboard.wsgi(looked_at, artifact_store=store))
    if quickly:
        documents = StudyDocuments(looked_at)
        application = quick(application, documents, looked_at.ours)
    application = kept_up_to_date(application, live)
    if study is not None and looked_at.ours(study):
        live.renew(study)
        if quickly:
            documents.document(study)
    return spoken(application) if allow_edit else read_only(application)


def kept_up_to_date(application: WSGI, live: Live) -> WSGI:
    """Renew what a study shows when its page is asked for."""

    def page(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        number = study_asked_for(environ)
        if number is not None:
            live.look(number)
        return application(environ, start_response)

    return page


def styled(application: WSGI) -> WSGI:
    """Lay `dashboards/dashboard.css` over the pages."""
    style = f"<style>{shipped('dashboard.css')}</style></head>".encode()

    def page(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not environ["PATH_INFO"].startswith("/dashboard"):
            return application(environ, start_response)
        answer: list[Any] = []
        parts = application(environ, lambda *args: answer.extend(args))
        try:
            body = b"".join(parts)
        finally:
            getattr(parts, "close", int)()  # as WSGI has it
        if not body:  # what the browser has is still good
            start_response(*answer[:2])
            return []
        body = body.replace(b"</head>", style, 1)
        headers = [each for each in answer[1] if each[0].lower() != "content-length"]
        start_response(answer[0], [*headers, ("Content-Length", str(len(body)))])
        return [body]

    return page


def spoken(application: WSGI) -> WSGI:
    """Say {} where optuna-dashboard says nothing: its page reads JSON out of every answer, and
    with an empty one (204) an editor stays open as if nothing had been saved."""

    def speak(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        silent = False

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            nonlocal silent
            silent = status.startswith("204")
            if silent:
                status = "200 OK"
                headers = [("Content-Type", "application/json"), ("Content-Length", "2")]
            return start_response(status, headers, *more)

        answer = application(environ, start)
        return [b"{}"] if silent else answer

    return speak


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
