"""Keys, and what they make of the bytes of one value; without a server."""

import base64
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from httpkit_stores import AsyncStore
from tornado_sessions import (
    CodecError,
    ConfigurationError,
    SessionConfig,
    SessionManager,
    StoreError,
)
from tornado_sessions.codecs import JSONCodec
from tornado_sessions.encrypted_values import EncryptedValues
from tornado_sessions.encryption import MAX_REMEMBERED, Keyring, keyring_from
from tornado_sessions.values import ENCRYPTED, Values

NEW, OLD = "n" * 43, "o" * 43
RAW = base64.urlsafe_b64decode(NEW + "=")
OVERHEAD = 34
KNOWN_PREFIX = "c1ff788dbd27"
"""What values begin with that NEW has encrypted."""
PLACES = ["", "a", "\0", "\0flash:x", "\ud800", "😀"]
codec = JSONCodec()


def values_of(loaded=(), handle="handle", keys=(NEW,)):
    cipher = keyring_from(list(keys)).cipher(handle)
    return EncryptedValues(codec, dict(loaded), cipher)


def changed(values):
    return values.changes()[0]


def encrypted(handle="handle", keys=(NEW,), **content):
    values = values_of((), handle, keys)
    for name, value in content.items():
        values.set(name, value)
    return changed(values)


# -- keys ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ([], "is empty"),
        ((), "is empty"),
        (NEW, "is <str>"),
        (RAW, "is <bytes>"),
        ({NEW}, "is <set>"),
        (["key"], "holds a str of length 3 that is no key, as number 1"),
        ([NEW, "sécret" * 8], "holds a str of length 48 that is no key, as number 2"),
        ([NEW, NEW[:-1]], "holds a str of length 42 that is no key, as number 2"),
        ([NEW + NEW], "holds a str of length 86 that is no key, as number 1"),
        ([RAW[:-1]], "holds a bytes of length 31 that is no key, as number 1"),
        ([RAW + b"!"], "holds a bytes of length 33 that is no key, as number 1"),
        ([None], "holds a NoneType that is no key, as number 1"),
        ([bytearray(RAW)], "holds a bytearray that is no key, as number 1"),
        ([NEW, OLD, NEW], "holds the same key twice"),
        ([NEW, RAW], "holds the same key twice"),
    ],
)
def test_keys_that_are_none(keys, what):
    """S9: what is no list of good keys is refused, says how to make one, shows none."""
    with pytest.raises(ConfigurationError) as caught:
        SessionConfig(encryption_keys=keys)
    assert str(caught.value).startswith(f"session_encryption_keys {what}; use ")
    assert "secrets.token_urlsafe(32)" in str(caught.value)
    for secret in (NEW[:-1], "sécret", repr(RAW)[2:-2]):
        assert secret not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_the_error_says_makes_a_key():
    """S9: the command in the message prints what is taken."""
    with pytest.raises(ConfigurationError) as caught:
        SessionConfig(encryption_keys=[])
    command = str(caught.value).partition("python -c '")[2].partition("'")[0]
    made = subprocess.check_output([sys.executable, "-c", command], text=True)
    assert isinstance(SessionConfig(encryption_keys=[made.strip()]), SessionConfig)


def test_a_key_may_be_bytes_or_text():
    """S4: a key is the same one as bytes, as text, and as text with its padding."""
    stored = encrypted(a=1, keys=[NEW])
    for same in (RAW, NEW + "="):
        assert values_of(stored, keys=[same]).get("a") == 1


def test_settings_do_not_show_the_keys():
    """S9: neither the settings nor the keys themselves print a key."""
    config = SessionConfig.from_settings({"session_encryption_keys": [NEW, OLD]})
    assert isinstance(config.encryption_keys, Keyring)
    for text in (repr(config), str(vars(config)), repr(config.encryption_keys)):
        assert "<Keyring of 2>" in text
        for key in (NEW, OLD):
            raw = base64.urlsafe_b64decode(key + "=")
            assert key not in text
            assert repr(raw)[2:-1] not in text


def test_without_the_package():
    """F3: who lacks cryptography is told what to install; without keys none is missed."""
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from tornado_sessions import SessionManager\n"
        "SessionManager('memory://')\n"
        f"SessionManager('memory://', encryption_keys=['{NEW}'])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("tornado_sessions.errors.ConfigurationError")
    assert "session_encryption_keys" in last
    assert last.endswith('pip install "tornado-sessions[encryption]"')


# -- bytes -----------------------------------------------------------------------


def by_the_page(handle):
    """Return the subkey that the page about encryption describes, without our code."""
    info = b"tornado_sessions values 1 session " + handle.encode()
    return AESGCM(HKDFExpand(SHA256(), 32, info).derive(RAW))


def test_the_format_is_the_documented_one():
    """S6: AES-256-GCM by a subkey of HKDF, bound to the name; what is stored stays good."""
    raw = encrypted(handle="h", a=["x"])["a"]
    prefix, nonce, sealed = raw[:6], raw[6:18], raw[18:]
    assert by_the_page("h").decrypt(nonce, sealed, ENCRYPTED + b"a") == b'["x"]'
    theirs = by_the_page("h").encrypt(b"\0" * 12, b"7", ENCRYPTED + b"a")
    assert values_of({"a": prefix + b"\0" * 12 + theirs}, "h").get("a") == 7
    assert prefix == bytes.fromhex("c1ff") + keyring_from([RAW]).newest
    assert prefix.hex() == KNOWN_PREFIX


def test_no_nonce_comes_twice():
    """S9: each encryption has a nonce of its own, also of a value that came before."""
    values, seen = values_of(), set()
    for number in range(2000):
        values.set("a", number % 2)
        seen.add(changed(values)["a"][6:18])
    assert len(seen) == 2000


def test_few_subkeys_are_remembered():
    """S9: subkeys of the sessions of late are at hand, and not of all there were."""
    keyring = keyring_from([NEW])
    handles = [f"h{number}" for number in range(MAX_REMEMBERED + 10)]
    stored = [keyring.cipher(handle).encrypt("a", b"1") for handle in handles]
    assert keyring.aead.cache_info().currsize == MAX_REMEMBERED
    assert keyring.aead(keyring.newest, "h99") is keyring.aead(keyring.newest, "h99")
    assert keyring.cipher("h0").decrypt("a", stored[0]) == b"1"
    for unknown in range(MAX_REMEMBERED):
        with pytest.raises(CodecError):
            keyring.cipher("h0").decrypt(
                "a", stored[0][:2] + unknown.to_bytes(4, "big")
            )
    assert keyring.aead.cache_info().currsize == MAX_REMEMBERED


@pytest.mark.parametrize("name", PLACES)
def test_a_value_comes_back_in_its_own_place_only(name):
    """S4 S5 S6: any key may hold a value, and no other key or session opens it."""
    values = values_of()
    values.set(name, ["secret"])
    raw = changed(values)[name]
    assert values_of({name: raw}).get(name) == ["secret"]
    with pytest.raises(CodecError, match="damaged, or was not written for this key"):
        values_of({name + "x": raw}).get(name + "x")
    with pytest.raises(CodecError, match="damaged, or was not written for this key"):
        values_of({name: raw}, handle="another").get(name)


def test_every_bit_is_authenticated():
    """S6: a value with any one bit flipped, or cut anywhere, is a CodecError."""
    raw = encrypted(a="secret")["a"]
    for bit in range(len(raw) * 8):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CodecError, match="session key 'a': the stored value"):
            values_of({"a": bytes(damaged)}).get("a")
    for length in range(len(raw)):
        with pytest.raises(CodecError, match="session key 'a': the stored value"):
            values_of({"a": raw[:length]}).get("a")


def test_no_error_tells_what_it_could_not_read():
    """S9: the error and its causes show neither the value nor the key."""
    plain, foreign = codec.encode("secret"), encrypted(a="secret", keys=[OLD])["a"]
    for raw in (plain, foreign, encrypted(b="secret")["b"], b""):
        with pytest.raises(CodecError) as caught:
            values_of({"a": raw}).get("a")
        error: BaseException | None = caught.value
        while error is not None:
            assert not any(one in str(error) for one in ("secret", NEW, OLD))
            error = error.__cause__


def test_no_fallback():
    """S6: what is not encrypted is refused with keys, what is encrypted without any."""
    with pytest.raises(CodecError, match="not encrypted, but session_encryption_keys"):
        values_of({"a": codec.encode(1)}).get("a")
    with pytest.raises(CodecError, match="is encrypted, but session_encryption_keys"):
        Values(codec, encrypted(a=1)).get("a")


def test_a_key_that_is_not_held_is_not_guessed():
    """S6: the key that wrote is known by its id; no other one is tried."""
    stored = encrypted(a=1, keys=[OLD])
    assert values_of(stored, keys=[NEW, OLD]).get("a") == 1
    with pytest.raises(CodecError, match="a key that session_encryption_keys does not"):
        values_of(stored, keys=[NEW]).get("a")


def test_equal_values_look_different():
    """S9: nobody sees from the stored bytes that two values are equal."""
    stored = [encrypted(a="x")["a"] for _ in range(50)]
    assert len(set(stored)) == 50
    plain = codec.encode("x")
    assert all(raw.startswith(ENCRYPTED) and plain not in raw for raw in stored)
    assert {len(raw) for raw in stored} == {len(plain) + OVERHEAD}


def test_only_what_changed_is_encrypted_anew():
    """S3: equal values keep their stored bytes, whichever key wrote them."""
    stored = encrypted(a=[1], b="b", c=3, keys=[OLD])
    values = values_of(stored, keys=[NEW, OLD])
    values.get("a")
    values.set("b", "b")
    assert values.changes() == ({}, frozenset())
    assert not values.unsaved("b")
    values.get("a").append(2)
    assert values.unsaved("a")
    assert set(changed(values)) == {"a"}
    assert changed(values) == changed(values)  # asked twice, it is the same answer
    assert values_of(changed(values), keys=[NEW]).get("a") == [1, 2]
    values.get("a").pop()
    assert changed(values) == {}


def test_what_nobody_reads_is_overwritten():
    """S3 S6: a value that cannot be read harms nobody who only replaces it."""
    values = values_of({"a": b"damaged"})
    values.set("a", 1)
    assert values_of(changed(values)).get("a") == 1


async def test_the_limit_counts_what_is_stored():
    """S8: the size of a record is that of its encrypted values."""
    limit = len("a") + len(codec.encode("xxx")) + OVERHEAD
    settings = {"encryption_keys": [NEW], "max_record_bytes": limit}
    async with SessionManager(AsyncStore(), **settings) as manager:
        session = await manager.load([])
        session["a"] = "xxxx"
        with pytest.raises(CodecError, match=f"session_max_record_bytes is {limit}"):
            await session.save()
        session["a"] = "xxx"
        await session.save()


async def test_a_save_that_only_seemed_to_fail(monkeypatch):
    """F1 S4: what was stored though its answer was lost is read and written all the same."""
    store = AsyncStore()
    async with SessionManager(store, encryption_keys=[NEW]) as manager:
        session = await manager.load([])
        session.update(a=[1], b=2)
        with monkeypatch.context() as patch:
            commit = store.inner.commit

            async def lost(changes):
                await commit(changes)
                raise StoreError("the answer was lost")

            patch.setattr(store.inner, "commit", lost)
            with pytest.raises(StoreError):
                await session.save()
        session["a"].append(2)
        await session.save()
        again = await manager.load([session.ticket])
        assert dict(again) == {"a": [1, 2], "b": 2}


async def test_a_long_life_of_saves():
    """S3 C2 W3: a session that goes on after its saves knows what the store holds."""
    store = AsyncStore()
    async with SessionManager(store, encryption_keys=[NEW]) as manager:
        session = await manager.load([])
        for number in range(5):
            session["n"] = number
            session.setdefault("all", []).append(number)
            await session.save()
            assert await session.mutate("m", lambda m: m + 1, default=0) == number + 1
            store.forget()
            await session.save()
            assert (session["n"], session["m"], store.calls) == (number, number + 1, [])
        await session.refresh()
        assert dict(session) == {"n": 4, "m": 5, "all": [0, 1, 2, 3, 4]}
