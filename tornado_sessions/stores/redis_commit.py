"""A batch of changes in Redis, and the indexes by principal that follow them.

On one server a change and its index are one atomic operation. In a cluster they live in
different places, so an index is written before the record that it is to lead to: it may
hold too much, but never too little (R4).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypeAlias

from tornado_sessions.errors import StoreError
from tornado_sessions.stores.base import Change, Outcome, unusable
from tornado_sessions.stores.redis_calls import Answer, Calls
from tornado_sessions.stores.redis_changes import Operation, Operations

log = logging.getLogger("tornado_sessions")

_OUTCOMES = {"A": Outcome.APPLIED, "G": Outcome.GONE, "C": Outcome.CONFLICT}
_ITEM_ERRORS = (AttributeError, OverflowError, TypeError, ValueError)
"""What an unusable item raises."""
_Work: TypeAlias = Operation | StoreError


class Commits:
    """Carries out changes.

    Args:
        calls: The way to Redis.
        operations: Makes the operations.
    """

    def __init__(self, calls: Calls, operations: Operations) -> None:
        self._calls = calls
        self._operations = operations

    async def commit(
        self, changes: Sequence[Change], now: float
    ) -> list[Outcome | Exception]:
        """Do what `Store.commit` promises."""
        work = [self._operation(change, now) for change in changes]
        if self._calls.by_slot:
            work = await self._indexed_first(work, now)
        operations = [one for one in work if isinstance(one, Operation)]
        extended: list[Operation] = []
        if self._calls.by_slot:
            # Those are indexed already: their index has to know of the longer life.
            later = (one.index for one in operations if not one.index_first)
            extended = [index for index in later if index is not None]
        answers = await self._calls.perform([*operations, *extended], now)
        await self._follow_up(operations, answers, now)
        each = iter(answers)
        return [
            _outcome(next(each) if isinstance(one, Operation) else one) for one in work
        ]

    def _operation(self, change: Change, now: float) -> _Work:
        try:
            return self._operations.of(change, now)
        except _ITEM_ERRORS as error:
            return unusable(error)

    async def _indexed_first(self, work: list[_Work], now: float) -> list[_Work]:
        """Index what has to be; give up what could not be."""
        numbers: list[int] = []
        indexes: list[Operation] = []
        for number, one in enumerate(work):
            if isinstance(one, Operation) and one.index and one.index_first:
                numbers.append(number)
                indexes.append(one.index)
        try:
            answers = await self._calls.perform(indexes, now)
        except StoreError as error:  # which concerns these, and no others (R1)
            answers = [error for _ in indexes]
        for number, answer in zip(numbers, answers, strict=True):
            if isinstance(answer, StoreError):
                work[number] = answer
        return work

    async def _follow_up(
        self,
        operations: Sequence[Operation],
        answers: Sequence[Answer | StoreError],
        now: float,
    ) -> None:
        """Have indexes follow that no operation could name."""
        owed = self._owed(operations, answers)
        if not owed and len(answers) == len(operations):
            return
        try:
            done = await self._calls.perform(owed, now)
        except StoreError as error:
            done = [error]
        failed = [
            *filter(_is_error, done),
            *filter(_is_error, answers[len(operations) :]),
        ]
        if failed:
            # The changes stand. `find` asks the records, whatever the index thinks.
            log.warning(
                "%d indexes by principal are behind: %s", len(failed), failed[0]
            )

    def _owed(
        self, operations: Sequence[Operation], answers: Sequence[Answer | StoreError]
    ) -> list[Operation]:
        """Return what is left to do if a change did not know whose session it was.

        In a cluster also where a session ended.
        """
        owed: list[Operation] = []
        for operation, answer in zip(operations, answers, strict=False):
            if isinstance(answer, StoreError) or answer.principal is None:
                continue
            handle = operation.args[0]
            if answer.expires:
                owed.append(
                    self._operations.index(answer.principal, handle, answer.expires)
                )
            else:
                owed.append(self._operations.unindex(answer.principal, handle))
        return owed


def _is_error(answer: Answer | StoreError) -> bool:
    return isinstance(answer, StoreError)


def _outcome(answer: Answer | StoreError) -> Outcome | Exception:
    if isinstance(answer, StoreError):
        return answer
    return _OUTCOMES[answer.letter]
