"""When a session began, was used and ends, as the application sees it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Protocol

from tornado_sessions.mapping import ValueMapping
from tornado_sessions.stores.base import Record


class Clock(Protocol):
    """Who knows the time, in epoch seconds, and when a session ends."""

    def now(self) -> float: ...

    def expiry(self, session: Any) -> float: ...


class ClockedMapping(ValueMapping):
    """Values, and the times that the record says."""

    __slots__ = ("_owner", "_principal", "login_pending", "record")

    record: Record | None
    """What the store holds; None if it knows no such session."""
    _principal: str | None
    _owner: Clock
    login_pending: bool

    @property
    def authenticated_at(self) -> datetime | None:
        """When the principal last proved who they are: at `login` (aware, UTC).

        None if nobody is logged in, or if that was before this was kept. Neither
        `regenerate_id` nor a rotation moves it; `login` as the same principal does.
        """
        if self._principal is None:
            return None
        if self.login_pending or self.record is None:
            return aware(self._owner.now())
        at = self.record.meta.authenticated_at
        return None if at is None else aware(at)

    @property
    def created_at(self) -> datetime:
        """When the session began (aware, UTC); now, if it is new."""
        return aware(self.record.meta.created_at if self.record else self._owner.now())

    @property
    def last_seen_at(self) -> datetime:
        """The last use that was recorded (aware, UTC).

        It lags behind the real one by 5 % of the idle timeout or an hour at most,
        whichever is less.
        """
        known = self.record
        return aware(known.meta.last_seen_at if known else self._owner.now())

    @property
    def expires_at(self) -> datetime:
        """When the session ends if it is not used any more (aware, UTC)."""
        return aware(self._owner.expiry(self))


def aware(seconds: float) -> datetime:
    """Return *seconds* since the epoch as an aware datetime in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc)
