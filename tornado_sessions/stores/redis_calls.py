"""What is asked of Redis in one go, and what it said."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from tornado_sessions.errors import StoreError
from tornado_sessions.stores.redis_changes import SLACK, Operation
from tornado_sessions.stores.redis_errors import explained
from tornado_sessions.stores.redis_layout import Layout, principal_of
from tornado_sessions.stores.redis_scripts import COMMIT, Script
from tornado_sessions.stores.redis_transport import Call, Command, Transport

log = logging.getLogger("tornado_sessions")

MOST_IN_CALL = 64
"""Records in one call: no other client of the server waits for much longer."""


class Answer(NamedTuple):
    """What became of one operation: the letter of the script, and what goes with it."""

    letter: str
    principal: str | None = None
    """Whose index has yet to follow, if the operation could not see to it."""
    expires: bytes = b""
    """Until when the record lives; empty if it has ended."""


_PLAIN = {letter: Answer(letter) for letter in "AGC"}


class Calls:
    """Sends what may go together in one call, and all calls in one round trip.

    Args:
        transport: The way to Redis.
        layout: Where things are.
    """

    def __init__(self, transport: Transport, layout: Layout) -> None:
        self._transport = transport
        self._layout = layout
        self._warned = False
        self.by_slot = transport.by_slot
        """True in a cluster."""

    def groups(self, slots: Sequence[object]) -> list[list[int]]:
        """Return the numbers of the items that may share a call, by their *slots*."""
        if not self.by_slot and 0 < len(slots) <= MOST_IN_CALL:
            return [[*range(len(slots))]]
        together: dict[object, list[int]] = {}
        for number, slot in enumerate(slots):
            together.setdefault(slot if self.by_slot else 0, []).append(number)
        return [
            numbers[start : start + MOST_IN_CALL]
            for numbers in together.values()
            for start in range(0, len(numbers), MOST_IN_CALL)
        ]

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """Return the answer to each call, in order, or its error.

        Raises:
            StoreError: None of them was answered.
        """
        if not calls:
            return []
        try:
            answers = await self._transport.run(calls)
        except Exception as error:
            raise explained(error)  # noqa: B904  (it is the cause already)
        errors = [one for one in answers if isinstance(one, Exception)]
        if len(errors) == len(answers):
            raise explained(errors[0])
        return answers

    async def ask(
        self, script: Script, keys: Sequence[bytes], *args: bytes
    ) -> list[Any]:
        """Run a script on indexes and return its answers, one for each call needed.

        Raises:
            StoreError: One of them failed: a part would be taken for the whole.
        """
        groups = [[key] for key in keys] if self.by_slot else [keys]
        answers = await self.run([Call(script, group, args) for group in groups])
        for one in answers:
            if isinstance(one, Exception):
                raise explained(one)
        return answers

    async def delete_all(self) -> None:
        """Delete every key of the namespace, on every master."""
        layout = self._layout
        try:
            async for keys in self._transport.scan(layout.everything):
                ours = filter(layout.owns, keys)
                commands = [Command((b"UNLINK", key), key) for key in ours]
                for answer in await self._transport.send(commands):
                    if isinstance(answer, Exception):
                        raise answer  # noqa: TRY301
        except Exception as error:
            raise explained(error)  # noqa: B904  (it is the cause already)

    async def perform(
        self, operations: Sequence[Operation], now: float
    ) -> list[Answer | StoreError]:
        """Carry out *operations*; say what became of each."""
        if not operations:
            return []
        groups = self.groups([one.slot for one in operations])
        each = [[operations[number] for number in group] for group in groups]
        start = (b"%r" % now, b"%r" % SLACK, self._layout.channel)
        calls = [_call(some, start) for some in each]
        answers: list[Answer | StoreError] = [StoreError()] * len(operations)
        for group, reply in zip(groups, await self.run(calls), strict=True):
            for number, answer in zip(
                group, self._answers(reply, len(group)), strict=True
            ):
                answers[number] = answer
        return answers

    def _answers(self, reply: Any, expected: int) -> list[Answer | StoreError]:
        if isinstance(reply, Exception):
            return [explained(reply) for _ in range(expected)]
        said: list[bytes]
        letters, unpublished, *said = (reply, b"") if type(reply) is bytes else reply
        if unpublished:
            self._warn(unpublished)
        more = iter(said)
        each = letters.decode()
        return [_PLAIN.get(letter) or _answer(letter, more) for letter in each]

    def _warn(self, error: bytes) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "a session ended, but Redis did not publish it on %s: %s",
                self._layout.channel.decode(),
                explained(error.decode(errors="replace")),
            )


def _call(operations: Sequence[Operation], start: Sequence[bytes]) -> Call:
    keys = [key for one in operations for key in one.keys]
    # One string for all: each argument by itself costs more than what is in it.
    words = list(chain.from_iterable(one.words() for one in operations))
    sizes = msgspec.json.encode([*map(len, words)])
    return Call(COMMIT, keys, (*start, sizes, b"".join(words)))


def _answer(letter: str, more: Iterator[bytes]) -> Answer | StoreError:
    if letter == "E":
        return explained(next(more).decode(errors="replace"))
    if letter == "O":
        return Answer("A", principal_of(next(more)), next(more))  # None: malformed
    raise ValueError(f"the script answered {letter!r}")
