"""What the manager needs to know of a request."""

from __future__ import annotations

import sys
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
        # Interned: a million sessions share a few hundred browsers.
        agent = sys.intern(self.user_agent[:MAX_USER_AGENT])
        return {"user_agent": agent, "ip": self.ip}
