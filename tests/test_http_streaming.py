"""What happens once headers have left (T4), and once the answer is complete."""

import asyncio

import pytest

from httpkit import Counter, Page, serving, session_cookies, stored
from httpkit_stores import Gate, on_every_store, on_waiting_stores, soon, until
from tornado_sessions import ResponseStarted


def is_late(caplog):
    errors = [record.exc_info[1] for record in caplog.records if record.exc_info]
    return any(isinstance(error, ResponseStarted) for error in errors)


class Late(Counter):
    """GET changes the session after the first flush."""

    async def get(self):
        self.write("half")
        await soon(self.flush())
        self.session["n"] = 99
        self.write(" and half")


@on_every_store
async def test_a_change_after_the_flush_is_reported(make_store, caplog):
    """T4: what is changed after the first flush raises ResponseStarted at the end."""
    async with serving(Late, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        before = await site.record()
        await visitor.get()
        await until(lambda: is_late(caplog))
        assert await site.record() == before


@on_every_store
async def test_a_new_session_after_the_flush_is_reported(make_store, caplog):
    """T4: a session cannot begin once headers have left; nothing is stored."""
    async with serving(Late, make_store()) as site:
        answer = await site.visitor().get()
        await until(lambda: is_late(caplog))
        assert (session_cookies(answer), site.store.calls) == ([], [])


@on_every_store
async def test_save_session_after_the_flush_stores(make_store, caplog):
    """T4: a change after the first flush is stored by ``await save_session()``."""

    class Saves(Counter):
        async def get(self):
            await soon(self.flush())
            self.session["n"] += 10
            await self.save_session()

    async with serving(Saves, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        answer = await visitor.get()
        assert (answer.code, session_cookies(answer)) == (200, [])
        assert (await visitor.post()).body == b'{"n": 12}'
    assert not is_late(caplog)


@pytest.mark.parametrize("begin", ["value", "login", "regenerate"])
@on_every_store
async def test_what_needs_a_cookie_is_refused_after_the_flush(make_store, begin):
    """T4: save() raises ResponseStarted if a cookie would be due; nothing is stored."""
    raised = []

    class Saves(Counter):
        async def get(self):
            await soon(self.flush())
            if begin == "value":
                self.session["n"] = 1
            elif begin == "login":
                self.session.login("ada")
            else:
                self.session.regenerate_id()
            try:
                await self.save_session()
            except ResponseStarted as error:
                raised.append(str(error))
            await self.session.refresh()

    async with serving(Saves, make_store()) as site:
        visitor = site.visitor()
        if begin != "value":
            await visitor.post()
        before = await site.records()
        assert (await visitor.get()).code == 200
        assert await site.records() == before
    (message,) = raised
    assert "before the first flush()" in message


@on_every_store
async def test_destroy_after_the_flush_ends_the_session(make_store):
    """T4 K4: the server side ends even where no cookie can be cleared any more."""

    class Destroys(Counter):
        async def get(self):
            await soon(self.flush())
            self.session.destroy()
            await self.save_session()

    async with serving(Destroys, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        assert (await visitor.get()).code == 200
        assert await site.records() == []
        assert (await visitor.post()).body == b'{"n": 1}'


@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
@on_every_store
async def test_a_change_after_finish_is_reported(make_store, known, caplog):
    """T4: a change after finish() is not stored, and does not go unnoticed."""

    class AfterFinish(Counter):
        async def get(self):
            self.session["m"] = 1
            await soon(self.finish("done"))
            self.session["n"] = 99

    async with serving(AfterFinish, make_store()) as site:
        visitor = site.visitor()
        if known:
            await visitor.post()
        assert (await visitor.get()).body == b"done"
        await until(lambda: is_late(caplog))
        assert (await site.values()).get("n") == (b"1" if known else None)
    assert (200, "/") in site.access
    assert 500 not in dict(site.access)


@on_every_store
async def test_reading_after_finish_is_no_change(make_store, caplog):
    """T5: work after finish() may read the session, mutable values included."""
    read = []

    class AfterFinish(Counter):
        async def get(self):
            self.session["list"] = [1, 2]
            await soon(self.finish("done"))
            read.append((self.session["list"], self.session["n"], len(self.session)))

    async with serving(AfterFinish, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        await visitor.get()
        await until(lambda: read)
        await visitor.post()
    assert read == [([1, 2], 1, 2)]
    assert not is_late(caplog)


@on_waiting_stores
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("saves", [True, False])
async def test_reading_after_finish_while_the_store_is_busy(
    make_store, known, saves, caplog
):
    """T5, C1: it shows what this request has changed, and a save() undoes nothing of it."""
    seen, over = [], []

    class Adds(Page):
        def put(self):
            self.session.update(cart=["tea"], gone=1)

        async def post(self):
            self.session.setdefault("cart", ["tea"]).append("milk")
            self.session.pop("gone", None)
            self.redirect("/")
            seen.append((list(self.session["cart"]), "gone" in self.session))
            if saves:
                self.session["mailed"] = True
                await self.save_session()
            over.append(True)

    async with serving(Adds, make_store()) as site:
        visitor = site.visitor()
        if known:
            await visitor.fetch("/", method="PUT", body=b"")
        gate = site.store.park("commit")
        posted = asyncio.ensure_future(visitor.post())
        await gate.arrival()
        await until(lambda: seen)
        gate.open()
        assert (await soon(posted)).code == 302
        await until(lambda: over)
        decode = site.manager.config.codec.decode
        values = {name: decode(raw) for name, raw in (await site.values()).items()}
        assert values.pop("mailed", False) == saves
        assert values == {"cart": ["tea", "milk"]}
        assert seen == [(["tea", "milk"], False)]
    assert not is_late(caplog)


async def test_the_answer_does_not_wait_for_work_after_finish():
    """T5: the visitor has the whole answer while the handler is still busy."""
    gate = Gate()

    class Busy(Page):
        async def get(self):
            self.session["n"] = 1
            self.finish("done")
            await gate.pass_through()

    async with serving(Busy) as site:
        answer = await site.visitor().get()
        assert (answer.code, answer.body) == (200, b"done")
        await gate.arrival()
        gate.open()


@on_waiting_stores
async def test_the_first_byte_waits_for_the_store(make_store):
    """T2 T4: no header byte leaves before the store has answered; order is kept."""
    store = make_store()
    gate = store.park("commit")

    class Flushes(Page):
        def get(self):
            self.session["n"] = 1
            self.write("one ")
            self.flush()
            self.write("two")

    async with serving(Flushes, store) as site:
        reader, writer = await site.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await gate.arrival()
        reading = asyncio.ensure_future(reader.read())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not reading.done()
        assert not reader._buffer
        gate.open()
        answer = await soon(reading)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Set-Cookie: session=" in answer
    assert answer.index(b"one ") < answer.index(b"two")


@on_every_store
async def test_a_stream_that_writes_says_what_it_depends_on(make_store):
    """T6, T4: a first flush that waits for the store has ``Vary: Cookie``, too."""

    class Streams(Counter):
        async def get(self):
            self.session["n"] += 1
            self.write("one ")
            await soon(self.flush())
            self.write("two")

    async with serving(Streams, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        answer = await visitor.get()
        assert (answer.body, session_cookies(answer)) == (b"one two", [])
        assert answer.headers.get_list("Vary") == ["Cookie"]


@on_waiting_stores
async def test_a_save_waits_for_the_flush_before_it(make_store):
    """T4, C1: of two writes of one request the later one stays, awaited or not."""
    waited = []

    class Streams(Counter):
        async def get(self):
            self.session["n"] = 10
            self.flush()
            await gate.arrival()
            self.session["n"] = 20
            saving = asyncio.ensure_future(self.save_session())
            for _ in range(50):  # more turns than it needs on its own, in memory
                await asyncio.sleep(0)
            waited.append(not saving.done())
            gate.open()
            await soon(saving)

    async with serving(Streams, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        gate = site.store.park("commit")
        assert (await visitor.get()).code == 200
        assert waited == [True]
        assert await stored(site) == 20


@on_waiting_stores
async def test_a_save_after_the_end_waits_for_nothing(make_store):
    """T5: once the response is out there is nothing left to wait for."""

    class Goes(Counter):
        async def get(self):
            self.session["n"] = 10
            await soon(self.finish())
            await soon(self.session.save())
            done.set_result(True)

    async with serving(Goes, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        done = asyncio.get_running_loop().create_future()
        await visitor.get()
        assert await soon(done)
        assert await stored(site) == 10


@on_every_store
async def test_how_long_the_cookie_lives_is_not_forgotten_in_silence(
    make_store, caplog
):
    """T4: ``persistent`` that is set too late is reported, as any other change is."""

    class Remembers(Counter):
        async def get(self):
            await soon(self.flush())
            self.session.persistent = True

    async with serving(Remembers, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        before = await site.record()
        await visitor.get()
        await until(lambda: is_late(caplog))
        assert await site.record() == before


@on_every_store
async def test_an_error_page_reports_nothing_as_late(make_store, caplog):
    """S7: what a response of 500 leaves out on purpose is not late."""

    class Fails(Counter):
        async def get(self):
            self.session.persistent = True
            self.session["n"] = 7
            self.set_status(500)
            await soon(self.flush())
            self.write(str(self.session["n"]))

    async with serving(Fails, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        before = await site.record()
        assert (await visitor.get()).body == b"7"
        assert await site.record() == before
    assert not is_late(caplog)


@on_every_store
async def test_a_session_that_cannot_be_delivered_can_be_read(make_store, caplog):
    """K5, T4: a flush takes nothing from the handler, though nothing is stored."""

    class Shows(Counter):
        async def get(self):
            self.session["n"] = 7
            await soon(self.flush())
            self.write(str(self.session["n"]))

    async with serving(Shows, make_store(), session_secure=True) as site:
        answer = await site.visitor().get()
        assert (answer.body, site.store.calls) == (b"7", [])
    assert not is_late(caplog)
