"""An `Apply` as an update of one document, of the fields that change and no others."""

from __future__ import annotations

from typing import Any

from tornado_sessions.stores.base import MONOTONIC_FIELDS, Apply, Clock
from tornado_sessions.stores.mongo_documents import (
    check_size,
    escaped,
    meta_value,
    raw_value,
    ttl_date,
)
from tornado_sessions.stores.mongo_driver import UpdateOne

NOT_AS_EXPECTED = 66
"""The code of the error that an update makes if its expectations are not met."""
_FORWARD = MONOTONIC_FIELDS | {"ttl"}


def update_of(change: Apply, now: float, clock: Clock) -> UpdateOne:
    """Return the update that carries *change* out; an error says that it cannot be."""
    fields = _fields(change, clock)
    update: Any
    if change.expect or change.expect_token is not None:
        update = [{"$set": {"_id": _unless_unmet(change), **_pipeline(fields)}}]
    else:
        # Without a field to change it still has to tell whether the record is there.
        update = _operators(fields) or {"$max": {"expires_at": now}}
    expected = [*change.expect.items(), ("token", change.expect_token)]
    check_size([*fields.items(), *expected], {"u": update})
    return UpdateOne({"_id": change.handle, "expires_at": {"$gt": now}}, update)


def _fields(change: Apply, clock: Clock) -> dict[str, Any]:
    """Return the new value of each field that changes; None = to be absent."""
    fields: dict[str, Any] = {f"values.{escaped(key)}": None for key in change.unset}
    for key, raw in change.set.items():
        fields[f"values.{escaped(key)}"] = raw_value(raw)
    for name, value in change.meta.items():
        fields[name] = meta_value(name, value)
    if "expires_at" in change.meta:
        fields["ttl"] = ttl_date(change.meta["expires_at"], clock)
    return fields


def _operators(fields: dict[str, Any]) -> dict[str, dict[str, Any]]:
    operators: dict[str, dict[str, Any]] = {"$set": {}, "$unset": {}, "$max": {}}
    for name, value in fields.items():
        if value is None:
            operators["$unset"][name] = ""
        else:
            operators["$max" if name in _FORWARD else "$set"][name] = value
    return {name: changed for name, changed in operators.items() if changed}


def _pipeline(fields: dict[str, Any]) -> dict[str, Any]:
    stage: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None:
            stage[name] = "$$REMOVE"
        elif name in _FORWARD:
            stage[name] = {"$max": [f"${name}", value]}
        else:
            stage[name] = {"$literal": value}
    return stage


def _unless_unmet(change: Apply) -> dict[str, Any]:
    """Return the ``_id``: as it is, or one that makes the server refuse the update.

    A filter would not tell an expectation that is not met from a record that is not
    there. This does, by an error for that one update and none of its neighbours.
    """
    met = [
        {"$eq": [{"$type": f"$values.{escaped(key)}"}, "missing"]}
        if raw is None
        else {"$eq": [f"$values.{escaped(key)}", {"$literal": raw_value(raw)}]}
        for key, raw in change.expect.items()
    ]
    if change.expect_token is not None:
        token = meta_value("token", change.expect_token)
        met.append({"$eq": ["$token", {"$literal": token}]})
    return {"$cond": [{"$and": met}, "$_id", None]}
