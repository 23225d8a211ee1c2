"""Every way to end a response, with something to store (research: the 30 cases)."""

import asyncio

import pytest
from tornado.template import DictLoader
from tornado.web import Finish, HTTPError

from httpkit import Case, assert_counted, named, serving
from httpkit_stores import on_every_store, soon


class AutoFinish(Case):
    def get(self):
        self.bump()
        self.write("done")


class AutoFinishAsync(Case):
    async def get(self):
        await asyncio.sleep(0)
        self.bump()
        self.write("done")


class ExplicitFinish(Case):
    def get(self):
        self.bump()
        self.write("done")
        self.finish()


class FinishWithChunk(Case):
    def get(self):
        self.bump()
        self.finish("done")


class AwaitedFinish(Case):
    async def get(self):
        self.bump()
        await soon(self.finish("done"))


class ReturnedFinish(Case):
    def get(self):
        self.bump()
        return self.finish("done")


class WorkAfterFinish(Case):
    async def get(self):
        self.bump()
        self.finish("done")
        await asyncio.sleep(0)


class OverriddenFinish(Case):
    def get(self):
        self.bump()
        self.write("do")

    def finish(self, chunk=None):
        return super().finish("ne")


class BumpInOverriddenFinish(Case):
    def get(self):
        self.write("done")

    def finish(self, chunk=None):
        self.bump()
        return super().finish(chunk)


class FinishLater(Case):
    def get(self):
        self._auto_finish = False
        self.bump()
        asyncio.get_running_loop().call_later(0.001, self.finish, "done")


class BumpAndFinishLater(Case):
    def get(self):
        self._auto_finish = False
        asyncio.get_running_loop().call_later(0.001, self.later)

    def later(self):
        self.bump()
        self.finish("done")


class Redirect(Case):
    def get(self):
        self.bump()
        self.redirect("/elsewhere")


class RedirectInPrepare(Case):
    def prepare(self):
        self.bump()
        self.redirect("/elsewhere")

    def get(self):
        raise AssertionError("the verb must not run")


class FinishInPrepare(Case):
    async def prepare(self):
        self.bump()
        self.finish("done")

    def get(self):
        raise AssertionError("the verb must not run")


class PrepareWithoutSuper(Case):
    def prepare(self):
        self.bump()

    def get(self):
        self.write("done")


class FinishRaised(Case):
    def get(self):
        self.bump()
        self.write("done")
        raise Finish


class FinishRaisedWithArguments(Case):
    def get(self):
        self.bump()
        raise Finish("done")


class FinishRaisedInPrepare(Case):
    def prepare(self):
        self.bump()
        raise Finish("done")

    def get(self):
        raise AssertionError("the verb must not run")


class NotFound(Case):
    def get(self):
        self.bump()
        raise HTTPError(404)


class SendError(Case):
    def get(self):
        self.bump()
        self.send_error(403)


class Empty(Case):
    def get(self):
        self.bump()
        self.set_status(204)


class Rendered(Case):
    def get(self):
        self.bump()
        self.render("page.html")

    def get_template_path(self):
        return "lifecycle"  # Tornado keeps one loader for each path

    def create_template_loader(self, template_path):
        return DictLoader({"page.html": "{{ 'done' if session['n'] else '' }}"})


class FlushThenMore(Case):
    def get(self):
        self.bump()
        self.write("do")
        self.flush()
        self.write("ne")


class AwaitedFlushes(Case):
    async def get(self):
        self.bump()
        self.write("d")
        await soon(self.flush())
        self.write("on")
        await soon(self.flush())
        self.finish("e")


class FlushesInARow(Case):
    def get(self):
        self.bump()
        for letter in "done":
            self.write(letter)
            self.flush()


class EmptyFlush(Case):
    async def get(self):
        self.bump()
        await soon(self.flush())
        self.write("done")


class LoadedByHand(Case):
    session_autoload = False

    async def get(self):
        await self.load_session()
        self.bump()
        self.write("done")


ENDS_WITH_BODY = [
    AutoFinish,
    AutoFinishAsync,
    ExplicitFinish,
    FinishWithChunk,
    AwaitedFinish,
    ReturnedFinish,
    WorkAfterFinish,
    OverriddenFinish,
    BumpInOverriddenFinish,
    FinishLater,
    BumpAndFinishLater,
    FinishInPrepare,
    PrepareWithoutSuper,
    FinishRaised,
    FinishRaisedWithArguments,
    FinishRaisedInPrepare,
    Rendered,
    FlushThenMore,
    AwaitedFlushes,
    FlushesInARow,
    EmptyFlush,
    LoadedByHand,
]
OTHER_ENDS = [
    (Redirect, 302),
    (RedirectInPrepare, 302),
    (NotFound, 404),
    (SendError, 403),
    (Empty, 204),
]
ENDS = [(case, 200) for case in ENDS_WITH_BODY] + OTHER_ENDS


@on_every_store
@pytest.mark.parametrize(("case", "status"), ENDS, ids=named)
async def test_the_commit_comes_before_the_answer(case, status, make_store):
    """T2 S2 P7: however it ends, the answer comes after one commit, and is whole."""
    async with serving(case, make_store()) as site:
        visitor = site.visitor()
        answer = await assert_counted(site, visitor.get, status)
    if case in ENDS_WITH_BODY:
        assert answer.body == b"done"
    assert site.access == [(status, "/"), (status, "/")]
