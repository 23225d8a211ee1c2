"""What the codec reads: `CodecError`, or a value that it can write again (S4, S6)."""

from session_model import typed
from tornado_sessions.codecs import JSONCodec
from tornado_sessions.errors import CodecError

codec = JSONCodec()


def fuzz(data):
    try:
        value = codec.decode(data)
    except CodecError:
        return
    raw = codec.encode(value)
    assert codec.encode(codec.decode(raw)) == raw
    assert typed(codec.decode(raw)) == typed(value)


def grown(size):
    yield b"[" * size
    yield b'{"$set":[' * (size // 9)
    yield b'{"$dict":[' + b'["a",1],' * (size // 8) + b'["b",2]]}'
    yield b'{"$set":[' + b",".join(b"%d" % n for n in range(size // 6)) + b"]}"
    yield b'{"$int":"' + b"f" * size + b'"}'
    yield b'{"$decimal":"' + b"9" * size + b'"}'
    yield b'{"$datetime":"' + b"~" * size + b'"}'
    yield b'{"$bytes":"' + b"A" * (size // 4 * 4) + b'"}'
    yield b'{"$uuid":"' + b"{" * size + b'"}'
    yield b'{"$timedelta":[' + b"1," * (size // 2) + b"1]}"
    yield b"1" * size
    yield b"0." + b"1" * size
    yield b'"' + b"\\u0041" * (size // 6) + b'"'
    yield b'{"$dict":[' + b'[{"$str":"gA=="},1],' * (size // 20) + b"]}"
