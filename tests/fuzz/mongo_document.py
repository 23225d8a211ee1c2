"""What a document may hold, whoever wrote it: MongoDB knows no schema (S6, W2)."""

from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import bson
from bson import BSON, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS

from fuzz.material import Material
from fuzz.records import assert_record
from tornado_sessions.stores.base import Record
from tornado_sessions.stores.mongo_documents import escaped, record_of, unescaped
from tornado_sessions.stores.mongo_ends import end_in

TIMES = ("created_at", "last_seen_at", "expires_at", "epoch_at", "rotated_at")
NAMES = (*TIMES, "token", "epoch", "principal", "persistent", "salt", "values", "_id")
OPTIONS: bson.CodecOptions = bson.CodecOptions(
    datetime_conversion=bson.DatetimeConversion.DATETIME_AUTO
)
UNKNOWN = (Decimal, UUID, timedelta)
"""What BSON knows no type for."""
OTHERS = (
    *(Int64(7), Int64(2**62), Decimal128("1E6000"), Decimal128("NaN"), MinKey()),
    *(MaxKey(), ObjectId(b"o" * 12), Regex("("), Timestamp(1, 1), DatetimeMS(2**62)),
    *(bson.Binary(b"x", 128), bson.Code("x", {}), bson.DBRef("a", 1), {"$ref": "a"}),
)


def fuzz(data):
    try:
        document = BSON(data).decode(OPTIONS)
    except bson.errors.BSONError:
        pass
    else:
        read(document)
    material = Material(data)
    document = {"_id": "h", "token": b"t" * 32, "values": {}}
    document |= dict.fromkeys(TIMES, 1.7e9)
    for _ in range(1 + material.byte() % 4):
        document[material.choice((*NAMES, "reason"))] = anything(material)
    if material.byte() % 2:
        document["values"] = {
            material.text(): anything(material) for _ in material.several(bool)
        }
    read(document)
    key = material.text()
    assert unescaped(escaped(key)) == key


def read(document):
    record = record_of(document, 1.6e9)
    assert_record(record)
    if isinstance(record, Record):
        assert record.meta.expires_at > 1.6e9
    end = end_in(document)
    assert end is None or [isinstance(one, str) for one in end] == [True, True]


def anything(material):
    kind = material.byte() % 4
    if kind == 0:
        return material.choice(OTHERS)
    if kind == 1:
        return material.choice(([], {}, [[]], {"a": b"v"}, {"%00": b"v"}, {"%": b"v"}))
    value = material.scalar()
    return str(value) if isinstance(value, UNKNOWN) else value
