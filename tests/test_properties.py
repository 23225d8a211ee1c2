"""Whatever an application does: every store behaves as a dict would."""

import asyncio
import contextlib
import json
import os
from datetime import timedelta, timezone
from decimal import Decimal
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from session_model import ABSOLUTE, IDLE, play, typed
from tornado_sessions import CodecError, SessionManager
from tornado_sessions.codecs import JSONCodec
from tornado_sessions.stores.file import FileStore
from tornado_sessions.stores.memory import MemoryStore
from tornado_sessions.stores.sqlite import SQLiteStore

slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
unhurried = settings(deadline=None, suppress_health_check=slow, print_blob=True)
settings.register_profile("small", unhurried, max_examples=20)
settings.register_profile("moderate", unhurried, max_examples=100)
usual = "moderate" if os.environ.get("CI") else "small"
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", usual))

STORES = {
    "memory": lambda folder: MemoryStore(),
    "file": FileStore,
    "sqlite": lambda folder: SQLiteStore(f"{folder}/sessions.db"),
}
on_every_store = pytest.mark.parametrize("store", STORES)
codec = JSONCodec()

# -- values and keys -------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=()), max_size=8)
odd_keys = ("", "a.b", "$set", "$date", "__proto__", "cookie", "save", "get", "handle")
nasty_keys = ("\0", "\0flash:x", "\0\0", "😀", "\ud800", "é", "x" * 300)
keys = st.sampled_from(odd_keys + nasty_keys)
offsets = st.integers(-86399, 86399).map(lambda seconds: timedelta(seconds=seconds))
decimals = st.decimals().filter(lambda one: not one.is_snan())  # no set takes those
zones = st.none() | st.builds(timezone, offsets)
scalars = st.one_of(
    *(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        texts,
        st.binary(max_size=8),
    ),
    *(decimals, st.uuids(), st.dates(), st.datetimes(timezones=zones)),
    st.timedeltas(),
)
hashables = st.recursive(
    scalars,
    lambda inner: st.frozensets(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=5,
)
values = st.recursive(
    hashables | st.sets(hashables, max_size=3),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys | texts, inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(max_examples=5 * settings().max_examples)
@given(values)
@example(Decimal("-sNaN123"))
@example({"$dict": [[{"$set": 1}, -0.0]]})
@example({"$é": {"$": 1}})
@example({"\ud800": {"$\ud800": 1}})
@example([2**63, -(2**63) - 1, 10**5000])
def test_any_value_comes_back_as_it_was(value):
    """S4: any value of the types allowed, however nested, keeps its type and content."""
    raw = codec.encode(value)
    assert typed(codec.decode(raw)) == typed(value)
    assert codec.encode(codec.decode(raw)) == raw


tags = st.sampled_from(
    [
        "$str",
        "$int",
        "$float",
        "$tuple",
        "$set",
        "$frozenset",
        "$dict",
        "$datetime",
        "$date",
        "$timedelta",
        "$decimal",
        "$uuid",
        "$bytes",
        "$new",
        "plain",
    ]
)
json_like = st.recursive(
    scalars.filter(lambda one: isinstance(one, (str, int, float, bool, type(None)))),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(tags, inner, max_size=2)
    ),
    max_leaves=8,
)


def as_json(value):
    """Return *value* as JSON that this library did not write."""
    return json.dumps(value).encode()


@settings(max_examples=10 * settings().max_examples)
@given(
    st.one_of(st.binary(max_size=40), json_like.map(as_json), values.map(codec.encode))
)
@example(b"[" * 100_000)
@example(b'{"$tuple":' * 2000)
@example(b'{"$int":"' + b"f" * 100_000 + b'"}')
@example(b'{"$timedelta":[1e308,1,1]}')
@example(b'{"$decimal":"1e999999999999999999"}')
@example(b'{"$date":"2026-13-01"}')
@example(b'{"$dict":[["a"]]}')
@example(b'{"$str":"gICA"}')
@example(b'{"$dict":[[1,2]]}')
@example(b"[" * 101 + b"0" + b"]" * 101)
@example(b'{"$tuple":[' * 101 + b"]}" * 101)
@example(b'{"a":[' * 51 + b"]}" * 51)
def test_any_bytes_decode_or_are_refused(raw):
    """S4, S6: what is read from a store is a `CodecError`, or can be stored again."""
    for damaged in (raw, raw[:-1], raw[1:], raw.replace(b'"', b"", 1)):
        value = None
        with contextlib.suppress(CodecError):
            value = codec.decode(damaged)
        codec.encode(value)


@pytest.mark.parametrize("wrapped", [lambda x: [x], lambda x: {"$": x}, lambda x: (x,)])
def test_what_can_be_stored_can_be_read(wrapped):
    """S4: the limit of nesting is the same both ways."""
    value = 0
    for _ in range(100):
        value = wrapped(value)
    assert codec.decode(codec.encode(value)) == value
    with pytest.raises(CodecError, match="nested deeper than 100"):
        codec.encode(wrapped(value))


@on_every_store
@given(data=st.dictionaries(keys | texts, values, min_size=1, max_size=6))
def test_any_key_and_value_round_trip(store, data):
    """S4, S5: through every store, any key holds any value, type and all."""

    async def round_trip():
        with TemporaryDirectory() as folder:
            async with SessionManager(STORES[store](folder)) as manager:
                session = await manager.load([])
                session.update(data)
                await manager.commit(session)
                read = await manager.load([session.ticket])
                assert {key: typed(value) for key, value in read.items()} == {
                    key: typed(value) for key, value in data.items()
                }
                assert not read.modified

    asyncio.run(round_trip())


# -- a session as a whole -------------------------------------------------------

some_keys = st.just("") | st.sampled_from(["a", "b", "$c.d", "\0e", ""])
some_values = st.sampled_from([0, 1, 2, "", "a", [], {}])
steps = st.one_of(
    st.tuples(st.just("set"), some_keys, some_values),
    st.tuples(st.just("unset"), some_keys),
    st.tuples(st.just("grow"), some_keys),
    st.tuples(st.just("mutate"), some_keys),
    st.tuples(st.just("flash"), st.text(max_size=3)),
    st.tuples(st.sampled_from(["flashes", "clear", "save", "regenerate", "destroy"])),
    st.tuples(st.just("login"), st.sampled_from(["alice", "bob"])),
)
data_steps = steps.filter(lambda step: step[0] in ("set", "unset", "grow"))
happenings = st.one_of(
    st.tuples(st.just("request"), st.lists(steps, max_size=4)),
    st.tuples(
        st.just("overlap"),
        st.lists(data_steps, max_size=3),
        st.lists(steps, max_size=3),
    ),
    st.tuples(st.just("advance"), st.sampled_from([1.0, 400.0, 999.0, 1000.0, 1500.0])),
    st.tuples(st.sampled_from(["sweep", "reopen", "revoke"])),
)
A_KEY: tuple = ("request", [("set", "a", [])])


@on_every_store
@given(story=st.lists(happenings, max_size=12))
@example([A_KEY, ("request", [("login", "alice"), ("mutate", "a"), ("set", "b", 1)])])
@example([A_KEY, ("request", [("regenerate",), ("mutate", "a")])])
@example([A_KEY, ("request", [("flash", "x"), ("mutate", "b"), ("flashes",)])])
@example([A_KEY, ("overlap", [("grow", "a")], [("destroy",), ("set", "a", 2)])])
def test_a_session_is_a_dict_that_lasts(store, story):
    """S1, S3, C1, C3, E1, R3: any story of requests reads as it would with a dict."""

    async def tell():
        with TemporaryDirectory() as folder:
            manager = SessionManager(
                STORES[store](folder),
                idle_timeout=IDLE,
                absolute_timeout=ABSOLUTE,
                rotate_after=None,
            )
            async with manager:
                await play(manager, story)

    asyncio.run(tell())
