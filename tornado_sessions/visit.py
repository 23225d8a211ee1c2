"""What the manager needs to know of a request."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

MAX_USER_AGENT = 256
"""Characters that are kept of a browser's name."""


class Visit(NamedTuple):
    """A request, as seen from a session. Without one, the defaults hold."""

    ip: str = ""
    user_agent: str = ""
    started: bool = False
    """The headers have left: no cookie can be sent any more."""
    insecure: bool = False
    """The cookie is for https only and this is plain http."""

    @property
    def device(self) -> dict[str, Any]:
        """What a record keeps of the browser, as fields of its meta."""
        return {"user_agent": _shared(self.user_agent[:MAX_USER_AGENT]), "ip": self.ip}


@lru_cache(maxsize=1024)
def _shared(user_agent: str) -> str:
    """Return *user_agent*, as the same object: a million sessions share a few hundred.

    Not by `sys.intern`: in Python 3.12 what is interned may stay for ever.
    """
    return user_agent
