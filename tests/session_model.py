"""What a session should be: a plain dict with a life, to compare the real one with."""

import copy
import math

from tornado_sessions.codecs import JSONCodec
from tornado_sessions.cookie import CookieDue
from tornado_sessions.testing import FakeClock

IDLE, ABSOLUTE = 1000.0, 3000.0
encode = JSONCodec().encode


class Model:
    """The values, flashes and principal of one visitor, and when that ends."""

    def __init__(self):
        self.end()

    def end(self):
        self.values, self.flashes, self.principal = {}, [], None
        self.stored = False
        self.created_at = self.changed_at = self.seen_at = 0.0

    def bytes(self):
        return {key: encode(value) for key, value in self.values.items()}

    def state(self):
        return self.bytes(), list(self.flashes), self.principal

    def settle(self, now):
        """A commit: what there is gets stored."""
        if not self.stored and self.state() != ({}, [], None):
            self.stored = True
            self.created_at = self.changed_at = now
        self.seen_at = now

    def certainly_over(self, now):
        return now >= self.seen_at + IDLE or now >= self.created_at + ABSOLUTE

    def certainly_live(self, now):
        """It may live a little longer: looking alone extends a life now and then."""
        return now < self.changed_at + IDLE and now < self.created_at + ABSOLUTE

    def step(self, now, name, *arguments):
        """Do to the model what the function `step` does to a session."""
        if name == "destroy":
            self.end()
        elif name == "login":
            (self.principal,) = arguments
        elif name == "flash":
            self.flashes.append(*arguments)
        elif name == "flashes":
            self.flashes = []
        elif name == "clear":
            self.values = {}
        elif name == "mutate":
            self.values[arguments[0]] = counted(self.values.get(arguments[0]))
        elif name in ("set", "unset", "grow"):
            change(self.values, name, *arguments)
        if name in ("save", "mutate"):
            self.settle(now)


def change(values, name, key, *value):
    """Set, unset, or change a value in place, in a dict or a session."""
    if name == "set":
        values[key] = copy.deepcopy(*value)
    elif name == "unset":
        values.pop(key, None)
    elif isinstance(found := values.get(key), list):
        found.append(len(found))
    elif isinstance(found, dict):
        found[str(len(found))] = [key]


def counted(value):
    return (value if isinstance(value, int) else 0) + 1


async def step(session, name, *arguments):
    """Do one thing to a session."""
    if name in ("set", "unset", "grow"):
        change(session, name, *arguments)
    elif name == "mutate":
        await session.mutate(arguments[0], counted)
    elif name == "save":
        await session.save()
    elif name == "regenerate":
        session.regenerate_id()
    else:
        getattr(session, name)(*arguments)


class Visitor:
    """One browser, and what its session should be."""

    def __init__(self, manager):
        self.manager = manager
        self.clock = manager.store.clock = FakeClock()
        self.model = Model()
        self.ticket = None

    async def load(self):
        session = await self.manager.load([self.ticket] if self.ticket else [])
        if self.model.stored:
            assert session.is_new or not self.model.certainly_over(self.clock())
            assert not session.is_new or not self.model.certainly_live(self.clock())
        if session.is_new:
            self.model.end()
        return session

    async def check(self):
        """Compare a session of its own: looking at the values changes what is seen."""
        session = await self.load()
        found = {key: encode(session[key]) for key in session}
        flashes = [flash.message for flash in session.flashes()]
        assert (found, flashes, session.principal) == self.model.state()
        if session.principal is not None:
            theirs = await self.manager.sessions_of(session.principal)
            assert [info.handle for info in theirs] == [session.handle]

    async def request(self, steps):
        session = await self.load()
        await self.carry_out(session, steps)

    async def carry_out(self, session, steps):
        before = self.model.state()
        for one in steps:
            await step(session, *one)
            self.model.step(self.clock(), *one)
        await self.manager.commit(session)
        self.model.settle(self.clock())
        if self.model.state() != before:
            self.model.changed_at = self.clock()
        if session.cookie_due is not CookieDue.KEEP:
            sent = session.cookie_due is CookieDue.SEND
            self.ticket = session.ticket if sent else None

    async def overlap(self, slow_steps, fast_steps):
        """One request loads, another comes and goes, and then the first commits."""
        slow = await self.load()
        if slow.is_new:
            return
        base = Model()
        base.values = copy.deepcopy(self.model.values)
        await self.request(fast_steps)
        before = base.bytes()
        for one in slow_steps:
            await step(slow, *one)
            base.step(self.clock(), *one)
        await self.manager.commit(slow)
        assert slow.cookie_due is CookieDue.KEEP
        if ("destroy",) in fast_steps:
            assert slow.ended or base.bytes() == before
        else:
            self.merge(base, before)

    def merge(self, base, before):
        """Only the keys that the slow request changed are touched by its commit."""
        after = base.bytes()
        changed = [key for key in after if after[key] != before.get(key)]
        removed = [key for key in before if key not in after]
        for key in changed:
            self.model.values[key] = base.values[key]
        for key in removed:
            self.model.values.pop(key, None)
        if changed or removed:
            self.model.changed_at = self.clock()

    async def advance(self, seconds):
        self.clock.advance(seconds)

    async def sweep(self):
        await self.manager.sweep()

    async def reopen(self):
        await self.manager.close()

    async def revoke(self):
        handles = [info.handle async for info in self.manager.iterate()]
        for handle in handles:
            assert await self.manager.revoke(handle)
        self.model.end()


async def play(manager, story):
    """Let things happen to one visitor, and compare after each."""
    visitor = Visitor(manager)
    for what, *arguments in story:
        await getattr(visitor, what)(*arguments)
        await visitor.check()


def typed(value):
    """Return *value* with every type spelt out, so that 1 is not True, nor NaN odd."""
    if isinstance(value, dict):
        return "dict", [(key, typed(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [typed(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted((typed(item) for item in value), key=repr)
    if type(value) is int:
        return int, hex(value)  # of any size
    if isinstance(value, float) and math.isnan(value):
        return float, "nan"
    return type(value), repr(value)
