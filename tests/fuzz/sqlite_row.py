"""What the rows of a session may hold: SQLite keeps anything in any column (S6)."""

from fuzz.material import Material
from fuzz.records import assert_record, cell, fields
from tornado_sessions.errors import CodecError
from tornado_sessions.stores.base import META_FIELDS
from tornado_sessions.stores.sqlite_rows import record_of


def fuzz(data):
    material = Material(data)
    meta = fields(material)
    row = ("h", *(meta[name] for name in META_FIELDS))
    pairs = material.several(lambda: (cell(material), cell(material)))
    found = record_of(row, pairs)
    assert found is not None
    assert_record(found)
    if isinstance(found, CodecError):
        assert "malformed" in str(found)
