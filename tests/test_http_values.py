"""Values, keys and records on their way through a request (S3-S6, S8)."""

import logging
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest

from httpkit import Page, serving, session_cookies
from httpkit_stores import AsyncStore, on_every_store
from tornado_sessions import CodecError
from tornado_sessions.stores.base import Apply, Outcome

VALUES = {
    "text": "ünï €😀",
    "number": 2**70,
    "float": -0.5,
    "nothing": None,
    "truth": True,
    "list": [1, [2, {"three": 4}]],
    "when": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc),
    "day": date(2026, 1, 2),
    "duration": timedelta(days=-1, microseconds=1),
    "money": Decimal("1.10"),
    "id": UUID(int=7),
    "bytes": b"\x00\xff",
    "set": {1, "2"},
    "frozenset": frozenset([1]),
    "tuple": (1, (2,)),
    "tagged": {"$set": [1]},
}
KEYS = ["", "a.b", "$set", "__proto__", "cookie", "save", "\0", "\0flash:x", "😀"]
INNER = {"text": "inner"}


class Keeps(Page):
    """Runs a function on the session: the test says which."""

    act: staticmethod

    async def get(self):
        self.write({"answer": self.act(self.session)})


def keeping(act):
    return type("Keeps", (Keeps,), {"act": staticmethod(act)})


class Switch:
    """Stands for the function on the session; a test turns it."""

    def __init__(self):
        self.act = lambda session: None

    def __call__(self, session):
        return self.act(session)


async def did(site, visitor, switch, act):
    switch.act = act
    site.store.forget()
    return await visitor.get()


@on_every_store
async def test_values_come_back_as_they_were(make_store):
    """S4 S5: every type and any key goes through two requests unharmed."""
    wanted = {**VALUES, **dict.fromkeys(KEYS, INNER)}
    switch = Switch()
    seen: dict[str, object] = {}
    async with serving(keeping(switch), make_store()) as site:
        visitor = site.visitor()
        await did(site, visitor, switch, lambda session: session.update(wanted))
        await did(site, visitor, switch, seen.update)
    assert seen == wanted
    assert {key: type(value) for key, value in seen.items()} == {
        key: type(value) for key, value in wanted.items()
    }


@on_every_store
async def test_only_what_changed_is_written(make_store):
    """S3 P7: in-place changes are saved, and only those keys; reading writes nothing."""
    switch = Switch()
    async with serving(keeping(switch), make_store()) as site:
        visitor = site.visitor()
        fill = {"cart": [1], "deep": {"a": {"b": 1}}, "other": "x", "gone": 1}
        await did(site, visitor, switch, lambda session: session.update(fill))

        def change(session):
            session["cart"].append(2)
            session["deep"]["a"]["b"] = 2
            session["other"] += ""
            del session["gone"]

        await did(site, visitor, switch, change)
        (written,) = site.store.changes
        assert dict(written.set) == {"cart": b"[1,2]", "deep": b'{"a":{"b":2}}'}
        assert list(written.unset) == ["gone"]
        await did(site, visitor, switch, lambda session: str(dict(session)))
        assert site.store.calls == ["load"]
        await did(site, visitor, switch, lambda session: session["cart"].reverse())
        await did(site, visitor, switch, lambda session: session["cart"].reverse())
        assert (await site.values())["cart"] == b"[1,2]"


@on_every_store
async def test_keys_that_nobody_touches_are_not_decoded(make_store):
    """S3: a key that is not touched is neither decoded nor written."""
    decoded = []

    class Watching:
        def encode(self, value):
            return repr(value).encode()

        def decode(self, raw):
            decoded.append(raw)
            return raw

    switch = Switch()
    handler = keeping(switch)
    async with serving(handler, make_store(), session_codec=Watching()) as site:
        visitor = site.visitor()
        await did(site, visitor, switch, lambda session: session.update(a=1, b=2))
        await did(site, visitor, switch, lambda session: session.update(c=3))
        assert decoded == []
        (written,) = site.store.changes
        assert set(written.set) == {"c"}
        await did(site, visitor, switch, lambda session: bool(session["a"]))
    assert decoded == [b"1"]


class Unstorable:
    pass


@pytest.mark.parametrize("flushing", [False, True], ids=["finish", "flush"])
@on_every_store
async def test_what_cannot_be_stored_is_an_error_that_names_the_key(
    make_store, flushing, caplog
):
    """S4: CodecError before a byte has left; the page says 500, the log says why."""

    class Writes(Page):
        def get(self):
            self.session["fine"] = 1
            self.write("half")
            self.session["the key"] = [Unstorable()]
            if flushing:
                self.flush()

    async with serving(Writes, make_store()) as site:
        answer = await site.visitor().get()
        assert (answer.code, session_cookies(answer)) == (500, [])
        assert b"half" not in answer.body
        assert site.store.calls == []
    (error,) = [r.exc_info[1] for r in caplog.records if r.exc_info]
    assert isinstance(error, CodecError)
    assert error.key == "the key"
    assert "'the key'" in str(error)


@on_every_store
async def test_a_record_that_is_too_large_is_refused(make_store, caplog):
    """S8: the error names the limit and the largest key; what was stored stays."""
    switch = Switch()
    async with serving(keeping(switch), make_store()) as site:
        visitor = site.visitor()
        await did(site, visitor, switch, lambda session: session.update(a=1))
        big = "x" * (256 * 1024)
        answer = await did(site, visitor, switch, lambda s: s.update(big=big))
        assert answer.code == 500
        assert set(await site.values()) == {"a"}
        answer = await did(site, visitor, switch, lambda s: s.update(big=big[:-20]))
        assert answer.code == 200
    assert "session_max_record_bytes is 262144" in caplog.text
    assert "its largest key is 'big'" in caplog.text


async def break_value(site):
    """Put what is no value into the only record."""
    change = Apply((await site.record()).handle, set={"bad": b"\xff{"})
    assert await site.store.inner.commit([change]) == [Outcome.APPLIED]


ACTS = {
    "get": lambda session: session.get("bad"),
    "in": lambda session: "bad" in session and session.get("bad"),
    "all": lambda session: str(dict(session)),
    "item": lambda session: session["bad"],
}


@pytest.mark.parametrize("how", ACTS)
@on_every_store
async def test_a_value_that_cannot_be_decoded(make_store, how, caplog):
    """S6: a warning, an event, a new session; never a 500 that does not end."""
    switch = Switch()
    async with serving(keeping(switch), make_store()) as site:
        visitor = site.visitor()
        await did(site, visitor, switch, lambda s: s.update(bad=1, good=1))
        old = (await site.record()).handle
        await break_value(site)
        site.events.clear()
        await did(site, visitor, switch, ACTS[how])
        assert ("undecodable", old) in [(e.kind, e.handle) for e in site.events]
        answer = await did(site, visitor, switch, ACTS["all"])
        assert (answer.code, answer.body) == (200, b'{"answer": "{}"}')
        answer = await did(site, visitor, switch, lambda s: s.update(bad=2))
        assert (answer.code, len(session_cookies(answer))) == (200, 1)
        answer = await did(site, visitor, switch, ACTS["item"])
        assert answer.body == b'{"answer": 2}'
    warnings = [r for r in caplog.records if r.name == "tornado_sessions"]
    assert warnings[0].levelno == logging.WARNING
    assert old in warnings[0].getMessage()


@on_every_store
async def test_a_record_that_cannot_be_decoded(make_store, caplog):
    """S6: a record that the store cannot read is dropped in the same way."""
    switch = Switch()
    async with serving(keeping(switch), make_store()) as site:
        visitor = site.visitor()
        await did(site, visitor, switch, lambda s: s.update(n=1))
        old = (await site.record()).handle
        site.store.unreadable.add(old)
        answer = await did(site, visitor, switch, ACTS["all"])
        assert (answer.code, answer.body) == (200, b'{"answer": "{}"}')
        assert ("undecodable", "truncated") in site.kinds
        assert await site.store.count() == 0
        assert len(session_cookies(answer)) == 1
        answer = await did(site, visitor, switch, lambda s: s.update(n=2))
        assert (answer.code, len(session_cookies(answer))) == (200, 1)
        assert (await site.record()).handle != old
    assert f"dropped the session {old}: truncated" in caplog.text


class Clumsy:
    """A codec that raises what it likes, and may not make bytes."""

    def encode(self, value):
        return bytearray(b"1") if value == "odd" else value.encode()

    def decode(self, raw):
        return raw.decode()


@on_every_store
async def test_a_codec_that_cannot_read_what_is_there(make_store):
    """S6: that is no endless 500: the visitor begins anew, whatever the codec raises."""
    switch = Switch()
    async with serving(keeping(switch), make_store(), session_codec=Clumsy()) as site:
        visitor = site.visitor()
        await did(site, visitor, switch, lambda session: session.update(a="x"))
        handle = (await site.record()).handle
        broken = Apply(handle, set={"a": b"\xff"})
        assert await site.store.commit([broken]) == [Outcome.APPLIED]
        answer = await did(site, visitor, switch, lambda session: session.get("a"))
        assert (answer.code, answer.body) == (200, b'{"answer": null}')
        assert await site.records() == []


@pytest.mark.parametrize(("value", "says"), [("odd", "bytearray"), (1, "Attribute")])
async def test_a_codec_that_makes_no_bytes(value, says, caplog):
    """S4: the error names the key, and no value."""
    switch = Switch()
    async with serving(keeping(switch), session_codec=Clumsy()) as site:
        act = lambda session: session.update(mine=value)  # noqa: E731
        answer = await did(site, site.visitor(), switch, act)
        assert answer.code == 500
    (error,) = [r.exc_info[1] for r in caplog.records if r.exc_info]
    assert isinstance(error, CodecError)
    assert "'mine'" in str(error)
    assert says in str(error)


@on_every_store
async def test_the_names_of_keys_count_in_bytes(make_store):
    """S8: 90 letters of four bytes are 360."""
    switch = Switch()
    limit = {"session_max_record_bytes": 300}
    async with serving(keeping(switch), make_store(), **limit) as site:
        visitor = site.visitor()
        for name, code in (("x" * 90, 200), ("\U0001f600" * 90, 500)):
            act = lambda session, name=name: session.update({name: 1})  # noqa: E731
            assert (await did(site, visitor, switch, act)).code == code


@pytest.mark.parametrize("error", [MemoryError, NameError, OSError])
async def test_a_codec_that_fails_for_reasons_of_its_own(error):
    """S6: nobody loses a session because a release was faulty, or memory short."""

    class Faulty(Clumsy):
        def decode(self, raw):
            raise error

    store, switch = AsyncStore(), Switch()
    async with serving(keeping(switch), store, session_codec=Clumsy()) as site:
        visitor = site.visitor()
        await did(site, visitor, switch, lambda session: session.update(a="x"))
    async with serving(keeping(switch), store, session_codec=Faulty()) as site:
        other = site.visitor(**visitor.cookies)
        answer = await did(site, other, switch, lambda session: session["a"])
        assert answer.code == 500
        assert list(await site.values()) == ["a"]
