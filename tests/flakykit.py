"""Visitors on a bad line, in a time of their own: what they send and get, and when.

A request leaves with the cookie that the browser has then, and takes its time; its
answer takes its own, may overtake others, and may be lost. All that is by chance, and
all chance comes from one seed.
"""

import asyncio
import heapq
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field

from tornado_sessions import SessionManager
from tornado_sessions.cookie import CookieDue, Ticket

PARALLEL = 8
ROTATE_AFTER, GRACE = 0.2, 0.1
"""Seconds; the grace is as long as a request under way can take, with its answer."""
SPREAD = 0.08
"""Seconds within which the requests of a burst are sent."""
LEG = 0.03
"""Seconds that a request takes at the most to arrive, to be handled, and back again."""
TUNNEL, NOISE = 0.15, 0.18
"""How likely all answers to a burst are lost, and else each: 30 % in sum."""
PAUSES = (0.0, 0.05, 0.2, 0.5, 5.0)
"""Seconds between two bursts: the last is much longer than the grace."""


@dataclass
class Browser:
    """One visitor: its cookie, and what it has had to see."""

    name: str
    persistent: bool
    ticket: Ticket | None = None
    written: set[str] = field(default_factory=set)


class BadLine:
    """Has browsers send bursts of requests to a manager, by the clock of its store.

    Args:
        store: Where the sessions are; has a `FakeClock`.
        seed: Where all chance comes from.
    """

    def __init__(self, store, seed):
        self.clock = store.clock
        self.chance = random.Random(seed)
        self.manager = SessionManager(
            store, rotate_after=ROTATE_AFTER, rotate_grace=GRACE
        )
        self.manager.subscribe(self._note)
        self.browsers = []
        self.seen = Counter()
        """How often what happened, events of the manager included."""
        self._due = []
        self._number = itertools.count()

    async def run(self, browsers, bursts):
        """Log each in, then have it send so many bursts; return when all is over."""
        async with self.manager:
            for number in range(browsers):
                later = self.chance.uniform(0, ROTATE_AFTER)
                browser = Browser(f"b{number}", persistent=number % 2 == 0)
                self._after(later, self._begin, browser, bursts)
            while self._due:
                await self._step()
            for browser in self.browsers:
                await self._look(browser)

    def _note(self, event):
        self.seen[event.kind] += 1
        if event.reason is not None:
            self.seen[event.reason] += 1

    def _after(self, seconds, do, *args):
        when = self.clock.now + seconds
        heapq.heappush(self._due, (when, next(self._number), do, args))

    async def _step(self):
        """Do at once what is due within the same millisecond."""
        tick = self._due[0][0] + 0.001
        now = []
        while self._due and self._due[0][0] <= tick:
            self.clock.now, _, do, args = heapq.heappop(self._due)
            now.append(do(*args))
        await asyncio.gather(*now)

    async def _begin(self, browser, bursts):
        session = await self.manager.load([])
        session.login(browser.name)
        session.persistent = browser.persistent
        await self.manager.commit(session)
        browser.ticket = session.ticket
        self.browsers.append(browser)
        self._after(LEG, self._burst, browser, bursts)

    async def _burst(self, browser, left):
        loss = 1.0 if self.chance.random() < TUNNEL else NOISE
        for request in range(PARALLEL):
            key = f"{left}.{request}" if request % 2 else None
            self._after(self.chance.uniform(0, SPREAD), self._send, browser, key, loss)
        if left > 1:
            pause = self.chance.choice(PAUSES)
            self._after(pause, self._burst, browser, left - 1)

    async def _send(self, browser, key, loss):
        self.seen["requests"] += 1
        ticket = browser.ticket._replace(handed_out=False)
        self._leg(self._arrive, browser, ticket, key, loss)

    def _leg(self, do, *args):
        self._after(self.chance.uniform(0, LEG), do, *args)

    async def _arrive(self, browser, ticket, key, loss):
        session = await self.manager.load([ticket])
        if session.principal != browser.name:
            self.seen["logouts"] += 1
            return
        self._leg(self._answer, browser, session, key, loss)

    async def _answer(self, browser, session, key, loss):
        if key is not None:
            session[key] = key
            browser.written.add(key)
        await self.manager.commit(session)
        sent = session.cookie_due is CookieDue.SEND
        self.seen["cookies"] += sent
        if self.chance.random() < loss:
            self.seen["lost answers"] += 1
            self.seen["lost cookies"] += sent
        elif sent:
            self._leg(self._receive, browser, session.ticket)

    async def _receive(self, browser, ticket):
        browser.ticket = ticket

    async def _look(self, browser):
        """See whether it is logged in, and has all that it wrote, when all is over."""
        session = await self.manager.load([browser.ticket])
        if session.principal != browser.name:
            self.seen["logouts"] += 1
        self.seen["lost updates"] += len(browser.written - set(session))
