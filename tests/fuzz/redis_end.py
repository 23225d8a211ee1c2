"""What may be published where ends are: handle and reason, or `ValueError` (W2)."""

from tornado_sessions.stores.redis_ends import end_message, end_of


def fuzz(data):
    try:
        handle, reason = end_of(data)
    except ValueError:
        pass
    else:
        assert end_of(end_message(handle, reason)) == (handle, reason)
    text = data.decode("utf-8", "surrogateescape")
    try:
        text.encode("utf-8", "surrogatepass")
    except UnicodeEncodeError:
        return
    half = len(text) // 2
    assert end_of(end_message(text[:half], text[half:])) == (text[:half], text[half:])


def grown(size):
    yield b"9" * size + b" "
    yield b"%d " % size + b"a" * size + b" r"
