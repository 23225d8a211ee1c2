"""What may stand as ``session_store``: a store, or `ConfigurationError` (F3)."""

from fuzz.material import Material
from tornado_sessions import ConfigurationError, store_from_url
from tornado_sessions.stores.base import Store

# Without mongodb+srv: its address is looked up in the DNS, which is no matter of ours.
SCHEMES = (
    *("memory", "file", "sqlite", "redis", "rediss", "valkey", "unix", "mongodb"),
    *("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"),
)
PIECES = (
    *("localhost", ":6379", "/0", "?", "&", "namespace=", "a", "b,c", ":p@", "[::1]"),
    *("%", "%00", "%2F", "..", "//", ":", "@", "=", "db=", "replicaSet=", "ssl=", "é"),
    *("protocol=", "timeoutMS=", "999999999999999999999", "-1", "nan", "1e9", "#", " "),
    *("health_check_interval=", "socket_timeout=", "max_connections=", "tls=true"),
    *("ssl_cert_reqs=", "w=", "password=hunter22", "/name", "\0", "\ud800", "Yes", "]"),
)
SECRET = "hunter22"


def fuzz(data):
    text = data.decode("utf-8", "surrogateescape")
    if not text.lower().startswith("mongodb+srv"):
        read(text)
    material = Material(data)
    url = f"{material.choice(SCHEMES)}://"
    while material:
        url += material.choice(PIECES) if material.byte() % 4 else material.text()[:8]
    read(url)


def read(url):
    try:
        store = store_from_url(url)
    except ConfigurationError as error:
        shown = f"{error!r} {error.__cause__!r} {error.__context__!r}"
        assert SECRET not in shown or not is_secret(url)
    else:
        assert isinstance(store, Store)


def is_secret(url):
    """Tell whether a password is where one belongs: before an @, or in an option."""
    before, _, after = url.partition(SECRET)
    return ("?" in before or "@" in after) and "namespace=" not in url
