"""What a note of an end may hold: handle and reason, or it is not one (W2)."""

import msgspec

from fuzz.material import Material
from fuzz.records import cell
from tornado_sessions.stores.file_ends import note_in


def fuzz(data):
    read(data)
    material = Material(data)
    read(msgspec.msgpack.encode(material.several(lambda: cell(material))))


def read(raw):
    try:
        end = note_in(raw)
    except ValueError:
        return
    assert [type(one) for one in end] == [str, str]


def grown(size):
    yield b"\x91" * size
    yield b"\x92" * size
    yield b"\x92\xc6\xff\xff\xff\xff" + b"a" * size
