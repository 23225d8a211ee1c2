"""What Redis may say of some records: read, absent, refused, or `CodecError` (S6)."""

from fuzz.material import Material
from fuzz.records import assert_record
from tornado_sessions.errors import CodecError
from tornado_sessions.stores.redis_layout import meta_field, principal_of, records_of

TIMES = ("created_at", "last_seen_at", "expires_at", "epoch_at", "rotated_at")
GOOD = {name: meta_field(name, 1.7e9) for name in TIMES}
GOOD["token"] = meta_field("token", b"t" * 32)


def fuzz(data):
    read(["h"], data)
    principal = principal_of(data)
    assert principal is None or type(principal) is str
    material = Material(data)
    replies = [entry(material) for _ in range(1 + material.byte() % 3)]
    packed = b"[" + b",".join(entry for entry, _ in replies) + b"]"
    blob = b"".join(blob for _, blob in replies)
    read(
        [f"h{n}" for n in range(len(replies))], b"%d %b" % (len(packed), packed) + blob
    )


def read(handles, reply):
    try:
        records = records_of(handles, reply)
    except CodecError:
        return
    assert len(records) == len(handles)
    for record in records:
        assert_record(record)


def entry(material):
    """Return what the script puts together of a hash, and names and values."""
    kind = material.byte() % 8
    if kind == 0:
        return material.choice([b"null", b'"ERR"', b"0", b"[]", b"[{},[]]"]), b""
    fields = dict(GOOD)
    for _ in range(material.byte() % 3):
        name = material.choice([*GOOD, "epoch", "principal", "other"])
        fields[name] = material.raw()
    sizes, parts = [], []
    for _ in range(material.byte() % 3):
        name, value = material.raw(), material.raw()
        sizes += [len(name), len(value)]
        parts += [name, value]
    if kind == 1:
        sizes.append(material.number() % 1000 - 500)
    meta = b",".join(b'"%b":%b' % (n.encode(), raw) for n, raw in fields.items())
    lengths = b",".join(b"%d" % size for size in sizes)
    return b"[{%b},[%b]]" % (meta, lengths), b"".join(parts)


def grown(size):
    yield b"%d " % size + b"[" * size
    yield b"9" * size + b" "
    meta = b",".join(b'"%b":%b' % (n.encode(), raw) for n, raw in GOOD.items())
    many = b"[[{%b},[1,1%b]]]" % (meta, b",1,1" * (size // 6))
    yield b"%d " % len(many) + many + b"a" * (size // 3)
    deep = b"[[{%b},[1,1%b]]]" % (meta, b'{"x":' * (size // 5))
    yield b"%d " % len(deep) + deep
    yield b'"' + b"\\ud800" * (size // 6) + b'"'
