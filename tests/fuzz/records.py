"""What the targets of the stores have in common: odd fields, and what a record is."""

from datetime import datetime

from tornado_sessions.clocked import aware
from tornado_sessions.errors import CodecError
from tornado_sessions.stores.base import META_FIELDS, Meta, Record

GOOD: dict[str, object] = dict.fromkeys(META_FIELDS, 1.7e9)
GOOD |= {"token": b"t" * 32, "epoch": 0, "principal": None, "persistent": None}
GOOD |= {"user_agent": "", "ip": "", "previous": None, "salt": None}
WORDS = ("nan", "inf", "1e999", "true", "1_0", "9" * 400, "")
NOW = 1.6e9


def fields(material):
    """Return the fields of a meta, of which some are odd."""
    odd = {
        material.choice(META_FIELDS): cell(material) for _ in range(material.byte() % 4)
    }
    return {**GOOD, **odd}


def cell(material):
    """Return what a column or a packed field may hold."""
    kind = material.byte() % 6
    if kind == 0:
        return None
    if kind == 1:
        return max(-(2**63), min(2**63 - 1, material.number()))
    if kind == 2:
        return material.float()
    if kind == 3:
        return material.raw().decode("utf-8", "replace")
    if kind == 4:
        return material.choice(WORDS)
    return material.raw()


def assert_record(found):
    """Check that whoever takes *found* for a record finds what a record has."""
    if found is None or isinstance(found, (str, CodecError)):
        return
    assert type(found) is Record
    assert type(found.handle) is str
    assert type(found.meta) is Meta
    for name, value in found.values.items():
        assert type(name) is str
        assert type(value) is bytes
    meta = found.meta
    for seconds in (meta.created_at, meta.last_seen_at, meta.expires_at):
        assert type(aware(seconds)) is datetime
    assert meta.authenticated_at is None or aware(meta.authenticated_at)
    # A cookie has three bytes for it, and a login adds one.
    assert 0 <= meta.epoch + 1 < 2**24
