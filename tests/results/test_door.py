"""Who comes in to the dashboard, and who does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from helpers.messages import one_line

from ztp_search.errors import ZtpError
from ztp_search.results.door import check_host, guarded

TOKEN = "0123456789abcdef"


def served(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"the dashboard"]


def ask(
    host: str = "127.0.0.1", token: str | None = None, proxy: bool = False, method: str = "GET",
    query: str = "", path: str = "/dashboard/", **headers: str,
) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer; headers of the request: as WSGI names them."""
    answers: list[Any] = []
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query}
    environ |= {"HTTP_HOST": "127.0.0.1:8080"} | {f"HTTP_{name}": v for name, v in headers.items()}
    application = guarded(served, host, token, proxy)
    body = b"".join(application(environ, lambda *args: answers.append(args)))
    ((status, sent, *_),) = answers
    assert (body == b"the dashboard") == status.startswith("200")
    return int(status[:3]), dict(sent)


@pytest.mark.parametrize(
    "asked", ["127.0.0.1:8080", "localhost:8080", "localhost", "LOCALHOST:8080", "127.0.0.2",
              "[::1]:8080"],
)  # fmt: skip
def test_loopback_answers_to_the_names_of_this_machine(asked: str) -> None:
    assert ask(HOST=asked)[0] == 200


@pytest.mark.parametrize(
    "asked", ["evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1",
              "", "127.0.0.1@evil.example", "[::2]:8080"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_loopback_answers_to_no_other_name(asked: str, method: str) -> None:
    assert ask(HOST=asked, method=method)[0] == 421


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # no page: curl, a script
        ({"ORIGIN": "http://127.0.0.1:8080"}, 200),
        ({"ORIGIN": "http://127.0.0.1:8080", "SEC_FETCH_SITE": "same-origin"}, 200),
        ({"ORIGIN": "https://evil.example"}, 403),
        ({"ORIGIN": "null"}, 403),
        ({"ORIGIN": "http://127.0.0.1:9090"}, 403),
        ({"SEC_FETCH_SITE": "cross-site"}, 403),
        ({"SEC_FETCH_SITE": "same-site"}, 403),
    ],
)
def test_a_page_of_another_site_changes_nothing(headers: dict[str, str], status: int) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert ask(method=method, **headers)[0] == status
    assert ask(**headers)[0] == 200  # it may ask, and cannot read what it gets


def test_off_loopback_a_token_is_asked_for() -> None:
    here = {"host": "0.0.0.0", "token": TOKEN, "HOST": "studies.example"}
    status, headers = ask(**here)  # type: ignore[arg-type]
    assert status == 401 and headers["WWW-Authenticate"] == "Bearer"
    for wrong in (TOKEN[:-1], TOKEN + "0", "", "é"):
        assert ask(**here, AUTHORIZATION=f"Bearer {wrong}")[0] == 401  # type: ignore[arg-type]
        assert ask(**here, COOKIE=f"ztp_search_token={wrong}")[0] == 401  # type: ignore[arg-type]
    assert ask(**here, query="token=wrong")[0] == 401  # type: ignore[arg-type]
    assert ask(**here, COOKIE="a=\x00;;=")[0] == 401  # type: ignore[arg-type]
    assert ask(**here, AUTHORIZATION=f"Bearer {TOKEN}")[0] == 200  # type: ignore[arg-type]
    status, headers = ask(**here, query=f"token={TOKEN}")  # type: ignore[arg-type]
    assert status == 303 and headers["Location"] == "/dashboard/"
    assert "HttpOnly" in headers["Set-Cookie"] and "SameSite=Strict" in headers["Set-Cookie"]
    _, elsewhere = ask(**here, query=f"token={TOKEN}", path="//evil.example/\r\nX: 1")  # type: ignore[arg-type]
    assert elsewhere["Location"] == "/evil.example/%0D%0AX%3A%201"
    cookie = headers["Set-Cookie"].partition(";")[0]
    assert ask(**here, COOKIE=f"other=1; {cookie}")[0] == 200  # type: ignore[arg-type]


def test_behind_a_proxy_whatever_it_passes_on_is_answered() -> None:
    assert ask(host="0.0.0.0", proxy=True, HOST="studies.example")[0] == 200
    assert ask(host="127.0.0.1", proxy=True, HOST="studies.example")[0] == 200
    foreign = {"HOST": "studies.example", "ORIGIN": "https://evil.example"}
    assert ask(host="0.0.0.0", proxy=True, method="DELETE", **foreign)[0] == 403  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_neither_token_nor_proxy(host: str) -> None:
    check_host(host, None, behind_proxy=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "studies.example", "", " "])
def test_it_does_not_listen_where_everybody_would_be_let_in(host: str) -> None:
    with pytest.raises(ZtpError) as refused:
        check_host(host, None, behind_proxy=False)
    assert "`host`" in one_line(refused)
    if host.strip():
        check_host(host, TOKEN, behind_proxy=False)
        check_host(host, None, behind_proxy=True)


def test_a_token_that_is_soon_guessed_is_refused_and_not_shown() -> None:
    with pytest.raises(ZtpError) as refused:
        check_host("127.0.0.1", "hunter2", behind_proxy=False)
    assert "ZTP_DASHBOARD_TOKEN" in one_line(refused) and "hunter2" not in one_line(refused)
