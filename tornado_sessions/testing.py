"""For those who test: applications that use sessions, and stores of their own.

An application::

    clock = FakeClock()
    SessionManager.of(application).store.clock = clock
    cookie = await prepare_session(application, {"cart": ["tea"]}, principal="alice")
    async with SessionClient(url, cookie=cookie) as client:
        response = await client.post("/checkout", {"pay": "later"})
    session = await read_session(application, client.cookie)
    assert "cart" not in session

A store: see `StoreConformance`. Nothing here needs a test framework but `unittest`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http.cookies import Morsel, SimpleCookie
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode, urljoin, urlsplit

from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from tornado_sessions.conformance import StoreConformance
from tornado_sessions.conformance_record import FakeClock
from tornado_sessions.cookie import encode
from tornado_sessions.manager import HasSettings, SessionManager
from tornado_sessions.session import Session
from tornado_sessions.visit import Visit
from tornado_sessions.web import SessionMixin

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "FakeClock",
    "SessionClient",
    "StoreConformance",
    "prepare_session",
    "read_session",
]


_MOVED, _SEE_OTHER, _REDIRECTS = {301, 302}, 303, {301, 302, 303, 307, 308}
_MOST_REDIRECTS = 5


class SessionClient:
    """A visitor with a cookie jar, on top of Tornado's `AsyncHTTPClient`.

    Requests may be made in parallel, as browsers do.

    ::

        async with SessionClient("http://127.0.0.1:8888") as client:
            response = await client.post("/cart", {"item": "tea"})
            assert response.code == 303  # redirects are not followed
            page = await client.get(response.headers["Location"])

    Args:
        url: Where the application listens; paths are taken relative to it.
        cookie: A ``Cookie`` header to begin with, such as `prepare_session` returns.
        xsrf_cookie_name: That of the application's settings.
    """

    def __init__(
        self, url: str, *, cookie: str = "", xsrf_cookie_name: str = "_xsrf"
    ) -> None:
        self.url = url
        self._xsrf = xsrf_cookie_name
        self.cookies: dict[str, str] = {}
        """What the jar holds, by name."""
        self._http = AsyncHTTPClient(force_instance=True, max_clients=100)
        for pair in filter(None, cookie.split("; ")):
            name, _, value = pair.partition("=")
            self.cookies[name] = value

    @property
    def cookie(self) -> str:
        """The jar as a ``Cookie`` header, for `read_session` or another client."""
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    async def get(self, path: str, **options: Any) -> HTTPResponse:
        """Ask for *path*; *options* are those of Tornado's ``HTTPRequest``."""
        return await self.fetch("GET", path, **options)

    async def post(
        self,
        path: str,
        data: Mapping[str, str] | bytes = b"",
        *,
        xsrf: bool = True,
        **options: Any,
    ) -> HTTPResponse:
        """Send *data*, a form or ready bytes, to *path*.

        With *xsrf*, the request passes Tornado's check of ``xsrf_cookies=True``. With
        ``session_xsrf=True`` that is so until somebody logs in: from then on send the
        token of a form, as ``_xsrf`` in *data*.
        """
        body = data if isinstance(data, bytes) else urlencode(data).encode()
        headers = HTTPHeaders(options.pop("headers", None) or {})
        if xsrf:
            token = self.cookies.setdefault(self._xsrf, secrets.token_hex(16))
            headers["X-Xsrftoken"] = token
        return await self.fetch("POST", path, body=body, headers=headers, **options)

    async def fetch(self, method: str, path: str, **options: Any) -> HTTPResponse:
        """Make any request with the cookies in the jar, and keep those that come.

        Whatever the status, the response is returned, unless *options* has
        ``raise_error=True``. With ``follow_redirects=True`` redirects are followed, at most
        as often as ``max_redirects`` (5) says, and not to another host.
        """
        follow = options.pop("follow_redirects", False)
        left = options.pop("max_redirects", _MOST_REDIRECTS) if follow else 0
        raising = options.pop("raise_error", False)
        response = await self._fetch(method, path, **options)
        while left and (place := _elsewhere(response)):
            left -= 1
            asks_anew = response.code == _SEE_OTHER and method != "HEAD"
            if asks_anew or (response.code in _MOVED and method == "POST"):
                method = "GET"
                options.pop("body", None)
            response = await self._fetch(method, place, **options)
        if raising:
            response.rethrow()
        return response

    async def _fetch(self, method: str, path: str, **options: Any) -> HTTPResponse:
        headers = HTTPHeaders(options.pop("headers", None) or {})
        if self.cookies:
            headers.setdefault("Cookie", self.cookie)
        options |= {"raise_error": False, "follow_redirects": False}
        url = urljoin(self.url, path)
        response = await self._http.fetch(
            url, method=method, headers=headers, **options
        )
        for header in response.headers.get_list("Set-Cookie"):
            for morsel in SimpleCookie(header).values():
                self._keep(morsel)
        return response

    def close(self) -> None:
        """Give up the connections."""
        self._http.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _keep(self, morsel: Morsel[str]) -> None:
        if _is_over(morsel):
            self.cookies.pop(morsel.key, None)
        else:
            self.cookies[morsel.key] = morsel.coded_value


def _elsewhere(response: HTTPResponse) -> str | None:
    """Return where a redirect leads, unless that is another host."""
    location = response.headers.get("Location")
    if location is None or response.code not in _REDIRECTS:
        return None
    here, place = response.effective_url, urljoin(response.effective_url, location)
    return place if urlsplit(place).netloc == urlsplit(here).netloc else None


async def prepare_session(
    application: HasSettings,
    values: Mapping[str, Any] | None = None,
    *,
    principal: str | None = None,
) -> str:
    """Store a new session and return the ``Cookie`` header that opens it.

    ::

        cookie = await prepare_session(application, {"cart": []}, principal="alice")
        page = await client.get("/cart", headers={"Cookie": cookie})

    Args:
        application: The `tornado.web.Application` under test.
        values: What the session holds.
        principal: Who is logged in, if anyone.
    """
    request = _request_of(application, "")
    session = request.session
    session.update(values or {})
    if principal is not None:
        session.login(principal)
    await session.save()
    if session.ticket is None:
        raise ValueError(
            "an empty session is not stored; give it values or a principal"
        )
    name = request.session_manager.config.full_cookie_name
    signed = request.create_signed_value(name, encode(session.ticket))
    return f"{name}={signed.decode()}"


async def read_session(application: HasSettings, cookie: str) -> Session:
    """Return the session that a request with *cookie* would get.

    ::

        session = await read_session(application, client.cookie)
        assert session["cart"] == ["tea"]

    It may be changed too: ``await session.save()``. A cookie that opens nothing gives a
    session with ``is_new`` True, as it does to a handler.

    Args:
        application: The `tornado.web.Application` under test.
        cookie: The ``Cookie`` header.
    """
    session = await _request_of(application, cookie).load_session()
    session.visit = Visit  # the request is over, but no response has left
    return session


class _Connection:
    """Stands in for the connection of a request that nobody sent."""

    remote_ip = "127.0.0.1"
    protocol = "https"  # the strictest cookie can be sent

    def __init__(self) -> None:
        self.context = self

    def set_close_callback(self, callback: object) -> None:
        """Never closes."""


def _request_of(application: HasSettings, cookie: str) -> SessionMixin:
    SessionManager.of(application)  # a wrong setting is known here and now
    headers = HTTPHeaders({"Host": "localhost"})
    if cookie:
        headers["Cookie"] = cookie
    request = HTTPServerRequest(
        start_line=RequestStartLine("GET", "/", "HTTP/1.1"),
        headers=headers,
        connection=cast("Any", _Connection()),
    )
    handler = SessionMixin(cast("Any", application), request)
    handler.session_autoload = False
    return handler


def _is_over(morsel: Morsel[str]) -> bool:
    """Tell whether a cookie says of itself that it is not to be kept."""
    if morsel["max-age"]:
        return int(morsel["max-age"]) <= 0
    if morsel["expires"]:
        return parsedate_to_datetime(morsel["expires"]).timestamp() <= FakeClock()()
    return False
