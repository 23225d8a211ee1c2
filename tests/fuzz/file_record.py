"""What a session's file may hold: a record, or `CodecError`, and nothing is raised (S6)."""

import zlib

import msgspec

from fuzz.material import Material
from fuzz.records import assert_record, cell, fields
from tornado_sessions.stores.base import Record
from tornado_sessions.stores.file_format import MAGIC, decoded, encoded


def fuzz(data):
    assert_record(decoded(data))
    read(data)
    material = Material(data)
    record = {"handle": "h", "meta": fields(material), "values": {}}
    names = material.several(material.raw)
    values = [cell(material) if material.byte() < 16 else material.raw() for _ in names]
    read(msgspec.msgpack.encode([record, names, values]))


def read(body):
    """Decode it with its checksum: who may write to the disk can work that out."""
    record = decoded(MAGIC + zlib.crc32(body).to_bytes(4, "big") + body)
    assert_record(record)
    if isinstance(record, Record):
        assert decoded(encoded(record)) == record


def grown(size):
    yield b"\x91" * size
    yield b"\x81" * size
    yield b"\x93\x83\xa1x" + b"\x91" * size
    yield b"\x93\xdf\xff\xff\xff\xff" + b"\xa1a\xc0" * (size // 3)
    yield b"\x93\xc0\xdd\xff\xff\xff\xff" + b"\xc4\x01a" * (size // 3)
