"""What the codec writes: `CodecError`, or bytes that become the same value (S4)."""

from fuzz.material import Material
from tornado_sessions.codecs import JSONCodec
from tornado_sessions.errors import CodecError

codec = JSONCodec()


def fuzz(data):
    value = Material(data).value()
    try:
        raw = codec.encode(value)
    except CodecError:
        return
    again = codec.decode(raw)
    assert type(again) is type(value)
    assert codec.encode(again) == raw
