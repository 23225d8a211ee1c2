"""What the manager needs to know of a request."""

from __future__ import annotations

from typing import NamedTuple


class Visit(NamedTuple):
    """A request, as seen from a session. Without one, the defaults hold."""

    ip: str = ""
    user_agent: str = ""
    started: bool = False
    """The headers have left: no cookie can be sent any more."""
    insecure: bool = False
    """The cookie is for https only and this is plain http."""
