"""Which of the reads that MongoDB offers see what was written before."""

from __future__ import annotations

from typing import Any

from tornado_sessions.stores.mongo_driver import ReadConcern, ReadPreference

_LOCAL = ReadConcern("local")
_PRIMARIES = {ReadPreference.PRIMARY.mode, ReadPreference.PRIMARY_PREFERRED.mode}


def fresh(collection: Any) -> Any:
    """Return *collection* so that reads see all that was written, whatever the client's.

    Neither a member that lags behind may answer, nor the primary with what a majority
    knew some time ago: a session that has ended would come back, or would not end.
    """
    return collection.with_options(
        read_preference=ReadPreference.PRIMARY, read_concern=_LOCAL
    )


def fresh_if_primary(collection: Any) -> Any:
    """Return *collection* so that reads are fresh where the client lets the primary answer."""
    if collection.read_preference.mode in _PRIMARIES:
        return collection.with_options(read_concern=_LOCAL)
    return collection
