"""Records that somebody else wrote or damaged: refused, by every store alike."""

import math
import zlib

import msgspec
import pytest

from tornado_sessions.errors import CodecError
from tornado_sessions.stores.base import META_FIELDS, Record
from tornado_sessions.stores.file_format import MAGIC
from tornado_sessions.stores.file_format import decoded as file_record
from tornado_sessions.stores.mongo_documents import record_of as mongo_record
from tornado_sessions.stores.redis_layout import records_of as redis_records
from tornado_sessions.stores.sqlite_rows import record_of as sqlite_record

TIMES = ("created_at", "last_seen_at", "expires_at", "epoch_at", "rotated_at")
GOOD = dict.fromkeys(META_FIELDS) | dict.fromkeys(TIMES, 1.7e9)
GOOD |= {"epoch": 0, "token": b"t" * 32, "user_agent": "", "ip": ""}
NAMES, VALUES = [b"a"], [b"1"]


def in_file(meta, names=NAMES, values=VALUES):
    stored = [{"handle": "h", "meta": meta, "values": {}}, names, values]
    body = msgspec.msgpack.encode(stored)
    return file_record(MAGIC + zlib.crc32(body).to_bytes(4, "big") + body)


def in_sqlite(meta, names=NAMES, values=VALUES):
    row = ("h", *(meta[name] for name in META_FIELDS))
    return sqlite_record(row, list(zip(names, values, strict=True)))


def in_mongo(meta, names=NAMES, values=VALUES):
    pairs = zip(map(bytes.decode, names), values, strict=True)
    return mongo_record({"_id": "h", "values": dict(pairs), **meta}, 1.6e9)


def in_redis(meta, names=NAMES, values=VALUES, sizes=None):
    if sizes is None:
        sizes = [len(one) for pair in zip(names, values, strict=True) for one in pair]
    known = {name: value for name, value in meta.items() if value is not None}
    packed = msgspec.json.encode([[known, sizes]])
    pairs = zip(names, values, strict=True)
    blob = b"".join(one for pair in pairs for one in pair)
    try:
        return redis_records(["h"], b"%d %b%b" % (len(packed), packed, blob))[0]
    except CodecError as error:
        return error


on_every_store = pytest.mark.parametrize(
    "read", [in_file, in_sqlite, in_mongo, in_redis], ids=lambda one: one.__name__
)


@on_every_store
def test_what_is_whole_is_read(read):
    """S6: what the tests below begin with is a record."""
    record = read(GOOD)
    assert (record.handle, record.values) == ("h", {"a": b"1"})
    assert record.meta.expires_at == 1.7e9


@pytest.mark.parametrize("read", [in_file, in_mongo, in_redis])
def test_what_a_newer_release_knows_more_is_ignored(read):
    """F3: what one release adds to a record keeps no other from reading it."""
    assert read({**GOOD, "of_later": 1.7e9}) == read(GOOD)


@on_every_store
@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("seconds", [math.nan, 1e300, 253402300800.0, "soon"])
def test_a_time_is_a_date(read, name, seconds):
    """S6 E1: no page shows a date that there is not, and none lives until then."""
    assert not isinstance(read({**GOOD, name: seconds}), Record)


@on_every_store
@pytest.mark.parametrize("name", ["confirmed_at", "authenticated_at"])
def test_a_time_that_may_be_missing_is_a_date(read, name):
    """S6: nobody is freshly logged in because a time is none that can be compared."""
    assert isinstance(read({**GOOD, name: 1e300}), CodecError)
    assert not isinstance(read({**GOOD, name: "nan"}), Record)
    assert isinstance(read({**GOOD, name: 1.7e9}), Record)


@on_every_store
@pytest.mark.parametrize("name", ["created_at", "last_seen_at", "rotated_at"])
def test_no_time_before_the_epoch(read, name):
    """S6 E1: a record from before there were any is none."""
    assert isinstance(read({**GOOD, name: -1.0}), CodecError)


@on_every_store
@pytest.mark.parametrize("epoch", [-1, 2**24 - 1, 2**63])
def test_an_epoch_fits_the_cookie(read, epoch):
    """S6 C6: what the cookie has no room for after a login is refused when it is read."""
    try:
        found = read({**GOOD, "epoch": epoch})
    except OverflowError:  # more than the database can hold
        return
    assert isinstance(found, CodecError)
    assert read({**GOOD, "epoch": 2**24 - 2}).meta.epoch == 2**24 - 2


@pytest.mark.parametrize("read", [in_file, in_sqlite, in_redis])
def test_a_name_is_text(read):
    """S6 F3: bytes that are no text are no name."""
    assert isinstance(read(GOOD, [b"\xff"]), CodecError)


def test_a_file_has_as_many_names_as_values():
    """S6 F3: nor is anything raised when there are more of one, or no end of lists."""
    assert isinstance(in_file(GOOD, [b"a", b"b"], [b"1"]), CodecError)
    deep = b"\x93\x82\xa1x" + b"\x91" * 3000
    checked = MAGIC + zlib.crc32(deep).to_bytes(4, "big") + deep
    assert isinstance(file_record(checked), CodecError)


@pytest.mark.parametrize("sizes", [[1], [1, 1, 1], [1, 2], [-1, 3], [2, 0, -1, 1]])
def test_the_sizes_of_redis_fit(sizes):
    """S6 R1: nobody's values are cut out of those of a neighbour."""
    assert isinstance(in_redis(GOOD, sizes=sizes), CodecError)


@pytest.mark.parametrize("reply", [b"", b"x []", b"2 []", b"6198 " + b"[" * 6198])
def test_a_reply_that_is_none_of_ours(reply):
    """S6 F3: an odd answer of Redis is a `CodecError`."""
    with pytest.raises(CodecError):
        redis_records(["h"], reply)


def test_a_handle_of_mongo_is_text():
    """S6: a document with a number as its _id is no session."""
    document = {**GOOD, "_id": 7, "values": {}}
    assert isinstance(mongo_record(document, 1.6e9), CodecError)
