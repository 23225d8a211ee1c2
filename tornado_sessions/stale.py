"""Requests from before a login that came after it (C6)."""

from __future__ import annotations

from tornado_sessions.stores.base import Record

STALE_SECONDS = 60.0
"""For so long after a login, a cookie from before it writes nothing."""
NOT_STALE = ("", 0.0)
"""The handle that an outdated cookie names, and until when it is to write nothing."""


def stale_by(record: Record) -> tuple[str, float]:
    """Return what keeps a request from before the login of *record* from writing."""
    return record.handle, record.meta.epoch_at + STALE_SECONDS
