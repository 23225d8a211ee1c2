"""Clients of MongoDB: made from a URL or handed in, of PyMongo or of Motor."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from tornado_sessions.deadline import ended
from tornado_sessions.errors import ConfigurationError
from tornado_sessions.stores.keeper import Keeper
from tornado_sessions.stores.mongo_driver import (
    AsyncMongoClient,
    CodecOptions,
    DatetimeConversion,
    InvalidOperation,
    PyMongoError,
    parse_uri,
)
from tornado_sessions.stores.url import safe_url

_DATABASE = "tornado_sessions"
_DATABASE_NAME = re.compile(r'[^/\\. "$*<>:|?\0]{1,63}')
_DEFAULTS: dict[str, Any] = {
    "appname": "tornado_sessions",
    "serverSelectionTimeoutMS": 3000,
}
"""For clients of our own, unless the URL says otherwise. A request waits 5 s for a store by
default: what the driver has to say about a server that is not there has to come before."""
_TAKEN = {"admin", "config", "local"}
"""Databases that MongoDB has for itself; "local" is not replicated."""
_URL_ERRORS = (PyMongoError, ValueError, OSError)
"""OSError: a certificate that is not there, for example."""
_UNACKNOWLEDGED = "MongoStore needs acknowledged writes, not w=0"
_GOODBYE = 0.25
"""Seconds to tell a server that may be hanging that its sessions are over."""
_OURS: CodecOptions[dict[str, Any]] = CodecOptions(
    # A date that no datetime can hold must not spoil the answer for its neighbours.
    datetime_conversion=DatetimeConversion.DATETIME_MS,
    unicode_decode_error_handler="replace",
)


class ClientSource:
    """Has a client of MongoDB for whichever event loop is running.

    Args:
        client_or_url: A client of PyMongo's asyncio API or of Motor, which is never
            closed here; or a URL, for which clients are made and closed.
        database: Which database; by default the one that the URL or client names.
    """

    def __init__(self, client_or_url: Any, database: str | None) -> None:
        if database is not None:
            _check_name(database, repr(database))
        self._url = client_or_url if isinstance(client_or_url, str) else None
        if self._url is None:
            _check_client(client_or_url, database)
        else:
            _check_url(self._url, database)
        self._database = database
        self._client = client_or_url
        self._keeper: Keeper | None = None

    @property
    def over(self) -> bool:
        """True if the client is our own, and closed."""
        return self._keeper is not None and self._keeper.over

    def collection(self, name: str) -> Any:
        """Return that collection, of a new client if there is a URL; does no I/O."""
        if self._url is None:
            return self._in_database(self._client, name)
        client = _client(self._url)
        collection = self._in_database(client, name)
        self._keeper = Keeper(partial(_say_goodbye, client))
        return collection

    async def close(self) -> None:
        """Close the client if it is our own."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await keeper.close()

    def _in_database(self, client: Any, name: str) -> Any:
        if self._database is not None:
            database = client.get_database(self._database)
        else:
            database = client.get_default_database(_DATABASE)
        return database.get_collection(name, codec_options=_OURS)


async def _say_goodbye(client: AsyncMongoClient[Any]) -> None:
    closing = asyncio.ensure_future(client.close())
    await asyncio.wait([closing], timeout=_GOODBYE)
    await ended(closing)
    try:
        await client.close()  # this time, if it was cancelled, it asks no server
    except InvalidOperation:
        # A cursor was to be closed, since a server was in trouble before: it is too late
        # for that. The rest was left out; now there is no such cursor any more.
        await client.close()


def _client(url: str) -> AsyncMongoClient[Any]:
    given = _options(url)
    ours = {name: _DEFAULTS[name] for name in _DEFAULTS if name.lower() not in given}
    try:
        return AsyncMongoClient(url, **ours)
    except _URL_ERRORS as error:
        refusal = _refusal(url, error)
    raise refusal


def _check_name(name: str, shown: str) -> None:
    if not _DATABASE_NAME.fullmatch(name):
        raise ConfigurationError(
            f"the name of a database cannot be {shown}; the namespace names a collection"
        )
    if name in _TAKEN:
        raise ConfigurationError(
            f"MongoDB has the database {name!r} for itself; give the name of another"
        )


def _check_client(client: Any, database: str | None) -> None:
    # By type: any attribute of a client is a database. Motor need not be installed.
    motor = hasattr(type(client), "get_io_loop")
    if not motor and not isinstance(client, AsyncMongoClient):
        raise ConfigurationError(
            f"MongoStore got a {type(client).__name__}; give it a mongodb:// URL, "
            "pymongo.AsyncMongoClient, or a client of motor_tornado or motor_asyncio"
        )
    # Motor would ask for an event loop, PyMongo inside of it does not.
    plain = client.delegate if motor else client
    if not plain.write_concern.acknowledged:
        raise ConfigurationError(_UNACKNOWLEDGED)
    if database is None:
        name = plain.get_default_database(_DATABASE).name
        _check_name(name, repr(name))


def _check_url(url: str, database: str | None) -> None:
    scheme = url.partition("://")[0]
    if scheme not in ("mongodb", "mongodb+srv"):
        raise ConfigurationError(f"{safe_url(url)} is no URL of MongoDB: mongodb://…")
    if scheme == "mongodb":  # to know more of the other would need the DNS
        _check_options(url)
    with suppress(ValueError):
        if int(_options(url).get("w", "1")) == 0:
            raise ConfigurationError(_UNACKNOWLEDGED)
    name = unquote_plus(_path_and_query(url)[0])
    if database is None and name:
        _check_name(name, f"the path of {safe_url(url)}")


def _check_options(url: str) -> None:
    try:
        parse_uri(url, validate=True, warn=False)
    except _URL_ERRORS as error:
        refusal = _refusal(url, error)
    else:
        return
    raise refusal


def _options(url: str) -> dict[str, str]:
    options = parse_qsl(_path_and_query(url)[1], keep_blank_values=True)
    return {name.lower(): value for name, value in options}


def _path_and_query(url: str) -> tuple[str, str]:
    # As the driver does it: urlsplit takes offence at what a password may hold.
    place, _, query = url.partition("://")[2].partition("?")
    return place.partition("/")[2], query


def _refusal(url: str, error: Exception) -> ConfigurationError:
    # The driver quotes what it did not understand: half a password, for example.
    quoted = "percent-escape name and password, and check the options"
    reason = quoted if "@" in url else str(error)
    return ConfigurationError(f"{safe_url(url)} is no URL of MongoDB: {reason}")
