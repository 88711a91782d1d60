"""Who may come in to the dashboard: it has no users of its own.

On loopback it answers whoever asks for it by a name of this machine, so that no page from elsewhere
can read it through a name that it lets point here (DNS rebinding). On any other address it asks for
a token, unless a proxy before it asks for a password. What comes from another site changes nothing.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from ztp_search.errors import ZtpError
from ztp_search.results.dashboard_api import WSGI

READING = frozenset({"GET", "HEAD", "OPTIONS"})
COOKIE = "ztp_search_token"
LEAST_TOKEN = 16
LOCALHOST = "localhost"


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches a server that listens on this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == LOCALHOST


def check_host(host: str, token: str | None, behind_proxy: bool) -> None:
    """Refuse to listen where everybody would be let in.

    Raises:
        ZtpError: the address is none, or open to the network without token or proxy, or the token
            is soon guessed.
    """
    if not host.strip():
        raise ZtpError(
            "`host` must be an address, but got none, which would mean all of them; use 127.0.0.1"
        )
    if token is not None and len(token) < LEAST_TOKEN:
        raise ZtpError(
            f"ZTP_DASHBOARD_TOKEN must have {LEAST_TOKEN} characters at least, but has "
            f"{len(token)}; use for example what `openssl rand -hex 16` prints"
        )
    if token is None and not behind_proxy and not is_loopback(host):
        raise ZtpError(
            f"`host` {host} is open to the network; set ZTP_DASHBOARD_TOKEN, which visitors are "
            "then asked for, or say `behind_proxy` where a proxy before it asks for a password"
        )


def guarded(application: WSGI, host: str, token: str | None = None, proxy: bool = False) -> WSGI:
    """The application for those who may come in.

    Args:
        application: what is served.
        host: the address that it listens on.
        token: asked for, where there is one: as `Authorization: Bearer TOKEN`, or once as
            `?token=TOKEN`, which a cookie then remembers.
        proxy: whether a proxy before it decides who comes in.
    """
    only_here = is_loopback(host) and not proxy

    def door(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        asked = environ.get("HTTP_HOST", "")
        if only_here and not is_loopback(urlsplit(f"//{asked}").hostname or ""):
            return _refuse(
                start_response, "421 Misdirected Request",
                "this dashboard is on loopback and answers to names of loopback alone, such as "
                f"{LOCALHOST}",
            )  # fmt: skip
        if environ["REQUEST_METHOD"] not in READING and not _same_site(environ, asked):
            return _refuse(start_response, "403 Forbidden", "another site may change nothing here")
        if token is None:
            return application(environ, start_response)
        query = parse_qs(environ.get("QUERY_STRING", ""))
        if _equal(query.get("token", [""])[0], token):
            cookie = f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict"
            start_response(
                "303 See Other",
                [("Location", quote("/" + environ["PATH_INFO"].lstrip("/"))),
                 ("Set-Cookie", cookie),
                 ("Referrer-Policy", "no-referrer"), ("Content-Length", "0")],
            )  # fmt: skip
            return []
        if not any(_equal(each, token) for each in _shown(environ)):
            return _refuse(
                start_response, "401 Unauthorized",
                "this dashboard wants its token: open it once with ?token=TOKEN behind its address",
                ("WWW-Authenticate", "Bearer"),
            )  # fmt: skip
        return application(environ, start_response)

    return door


def _same_site(environ: dict[str, Any], asked: str) -> bool:
    """Whether a request comes from a page of this server, or from no page."""
    if environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("none", "same-origin"):
        return False
    origin = environ.get("HTTP_ORIGIN")
    return origin is None or urlsplit(origin).netloc == asked


def _shown(environ: dict[str, Any]) -> list[str]:
    """The tokens that a request shows."""
    shown = [environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ").strip()]
    try:
        cookies = SimpleCookie(environ.get("HTTP_COOKIE", ""))
    except CookieError:
        return shown
    return [*shown, *(each.value for name, each in cookies.items() if name == COOKIE)]


def _equal(shown: str, token: str) -> bool:
    return hmac.compare_digest(shown.encode(), token.encode())


def _refuse(
    start_response: Callable[..., Any], status: str, why: str, *headers: tuple[str, str]
) -> Iterable[bytes]:
    body = f"{why}\n".encode()
    kind = ("Content-Type", "text/plain; charset=utf-8")
    start_response(status, [kind, ("Content-Length", str(len(body))), *headers])
    return [body]
