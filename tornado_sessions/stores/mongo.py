"""Sessions in MongoDB, for many processes on many machines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from tornado_sessions.stores.base import (
    DEFAULT_NAMESPACE,
    Change,
    Clock,
    EndListener,
    Loaded,
    Outcome,
    Record,
    Store,
    checked_namespace,
)
from tornado_sessions.stores.mongo_calls import answer_of
from tornado_sessions.stores.mongo_changes import Changes
from tornado_sessions.stores.mongo_client import ClientSource
from tornado_sessions.stores.mongo_documents import is_handle, is_text, record_of
from tornado_sessions.stores.mongo_ends import Ends, outdated
from tornado_sessions.stores.mongo_indexes import make_indexes
from tornado_sessions.stores.mongo_listening import listen, tell
from tornado_sessions.stores.mongo_reads import fresh, fresh_if_primary

_PAGE = 1000
"""Documents that one answer of the server holds: more than anybody has sessions."""


class MongoStore(Store):
    """Keeps sessions in one collection of MongoDB, a document for each (4.2 or later).

    It works on a standalone server and on a replica set, with PyMongo's asyncio API and
    with Motor. Write concern and read preference are the client's. Two things need
    them as they are by default: a read sees what was committed before if reads go to
    the primary, and what was acknowledged survives a failover with ``w=majority``.
    With other reads a page may show what is outdated; and when sessions with open sockets
    are looked at, one may be closed that lives, or one stay open whose session has ended.
    Whose sessions a user has is always asked of the primary; and what the primary is
    asked it answers with all that was written, whatever the client's read concern.

    The end of a session leaves a note for a minute or two, which others hear of: in a
    replica set by a change stream, and else by looking for notes twice a second.

    Expired sessions are deleted by a TTL index. It is created on first use; where the
    user has no right to do that, a warning says what an administrator has to run, and
    a sweeper does the work until then.

    Args:
        client_or_url: A ``mongodb://`` or ``mongodb+srv://`` URL with any option of the
            driver; or a `pymongo.AsyncMongoClient`, ``motor_tornado.MotorClient`` or
            ``motor_asyncio.AsyncIOMotorClient``, which is never closed here.
        database: Its name; by default what the URL or the client says, or else
            "tornado_sessions".
        namespace: The name of the collection; keeps applications apart that share the
            database.
        clock: See `Store`.

    Raises:
        ConfigurationError: The client, the URL or a name cannot work.
    """

    # A batch waits for the network and, with w=majority, for the disks of other
    # machines; meanwhile the next ones are on their way over connections of their own.
    # More than a few would make the batches small, and each costs a command.
    parallel = 4
    expires_natively = True  # corrected when it is open

    def __init__(
        self,
        client_or_url: Any,
        *,
        database: str | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        clock: Clock = time.time,
    ) -> None:
        super().__init__(clock=clock)
        self._namespace = checked_namespace(namespace)
        self._source = ClientSource(client_or_url, database)
        self._collection: Any = None
        self._fresh: Any = None
        self._loads: Any = None
        self._ends = Ends()
        self._listeners: list[EndListener] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is loop and not self._source.over:
            return
        self._collection = self._source.collection(self._namespace)
        self._fresh = fresh(self._collection)
        self._loads = fresh_if_primary(self._collection)
        self._loop = loop
        try:
            self.expires_natively = await make_indexes(self._collection)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        self._loop = None
        await self._source.close()

    async def load(self, handles: Sequence[str]) -> list[Loaded]:
        asked = [handle for handle in handles if is_handle(handle)]
        if not asked:
            return [None] * len(handles)
        await self.open()
        now = self.clock()  # whoever lives then may be extended behind the answer
        where = {"_id": {"$in": asked}}
        # One more than there can be: so the server knows that there is no second answer.
        documents = await self._select(self._loads, where, batch_size=len(asked) + 1)
        found = {one["_id"]: record_of(one, now) for one in documents}
        for listener in self._listeners:  # so that it knows why before it finds nothing
            tell(listener, documents)
        return [found.get(handle) for handle in handles]

    async def commit(self, changes: Sequence[Change]) -> list[Outcome | Exception]:
        await self.open()
        doing = Changes(self._collection, self.clock, self._ends)
        return await doing.carry_out(changes)

    async def find(self, principal: str) -> list[Record]:
        if not is_text(principal):
            return []
        await self.open()
        now = self.clock()
        where = {"principal": principal, "expires_at": {"$gt": now}}
        documents = await self._select(self._fresh, where, batch_size=_PAGE)
        found = [record_of(one, now) for one in documents]
        return [record for record in found if isinstance(record, Record)]

    async def sweep(self, limit: int) -> int:
        if limit < 1:
            return 0
        await self.open()
        expired = outdated(self.clock())
        found = await self._select(
            self._fresh, expired, {"_id": 1}, limit=limit, batch_size=limit
        )
        if not found:
            return 0
        these = {"_id": {"$in": [one["_id"] for one in found]}, **expired}
        done = await answer_of(self._collection.delete_many(these))
        return int(done.deleted_count)

    async def iterate(self, batch: int = 256) -> AsyncIterator[Record]:
        batch = max(batch, 1)
        after = {"$gte": ""}
        while True:
            await self.open()
            now = self.clock()
            where = {"_id": after, "expires_at": {"$gt": now}}
            documents = await self._select(
                self._collection,
                where,
                sort=[("_id", 1)],
                limit=batch,
                batch_size=batch,
            )
            for document in documents:
                record = record_of(document, now)
                if isinstance(record, Record):
                    yield record
            if len(documents) < batch:
                return
            after = {"$gt": documents[-1]["_id"]}

    async def count(self) -> int:
        await self.open()
        live = {"expires_at": {"$gt": self.clock()}}
        return int(await answer_of(self._collection.count_documents(live)))

    async def clear(self) -> None:
        await self.open()
        await answer_of(self._collection.delete_many({}))

    async def listen(self, listener: EndListener) -> None:
        await self.open()
        self._listeners.append(listener)
        try:
            await listen(self._collection, listener)
        finally:
            self._listeners.remove(listener)

    async def _select(
        self,
        collection: Any,
        where: dict[str, Any],
        fields: dict[str, Any] | None = None,
        **options: Any,
    ) -> list[dict[str, Any]]:
        cursor = collection.find(where, fields, **options)
        return list(await answer_of(cursor.to_list(None)))
