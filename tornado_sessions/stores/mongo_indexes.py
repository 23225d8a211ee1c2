"""The indexes of the collection, and what to say if they may not be made."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from tornado_sessions.errors import StoreError
from tornado_sessions.stores.mongo_calls import answer_of
from tornado_sessions.stores.mongo_driver import IndexModel
from tornado_sessions.stores.mongo_errors import UNAUTHORIZED, code_of, wants_user

log = logging.getLogger("tornado_sessions")

_INDEXES: dict[str, dict[str, Any]] = {
    "ttl": {"expireAfterSeconds": 0},
    "expires_at": {},  # for count and sweep, which go by the application's clock
    "principal": {"sparse": True},
    "ended_at": {"sparse": True},  # for those who look for what has ended
}
_TOLERATED = {UNAUTHORIZED, 85, 86}
"""Not allowed to; IndexOptionsConflict, IndexKeySpecsConflict: it is there otherwise."""


async def make_indexes(collection: Any) -> bool:
    """Make the indexes that are not there; return whether expired documents are deleted.

    An index that somebody else made on the same field is taken as it is. A user who
    may make none is told what to ask for, and goes on without.

    Raises:
        StoreError: The database failed.
    """
    if await _are_made(collection, _INDEXES):
        return True
    for field in _INDEXES:  # one that cannot be made keeps no other from being made
        await _are_made(collection, [field])
    there = await _there(collection)
    lacking = [field for field in _INDEXES if field not in there]
    if lacking:
        log.warning(
            "MongoDB: the collection %s lacks indexes. This user may not create them, or "
            "another index is in their way; expired sessions are %s. Let an "
            "administrator run: %s",
            collection.full_name,
            "deleted by a sweeper" if "ttl" in lacking else "deleted by the server",
            "; ".join(_recipe(collection.name, field) for field in lacking),
        )
    return "ttl" in there


async def _are_made(collection: Any, fields: Iterable[str]) -> bool:
    models = [IndexModel(field, **_INDEXES[field]) for field in fields]
    try:
        await answer_of(collection.create_indexes(models))
    except StoreError as error:
        if code_of(error) not in _TOLERATED or wants_user(error):
            raise
        return False
    return True


async def _there(collection: Any) -> set[str]:
    """Return the fields that have an index which does what is needed of it."""
    try:
        found = await answer_of(collection.index_information())
    except StoreError as error:
        if code_of(error) != UNAUTHORIZED:  # listing them may be forbidden as well
            raise
        return set()
    return {one["key"][0][0] for one in found.values() if _serves(one)}


def _serves(index: Mapping[str, Any]) -> bool:
    if "partialFilterExpression" in index:  # it leaves some of the documents out
        return False
    if index["key"][0][0] != "ttl":
        return True
    return "expireAfterSeconds" in index and len(index["key"]) == 1


def _recipe(collection: str, field: str) -> str:
    options = json.dumps(_INDEXES[field])
    return f'db.getCollection("{collection}").createIndex({{{field}: 1}}, {options})'
