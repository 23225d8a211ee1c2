import asyncio
import os

from tornado.web import Application, RequestHandler

from tornado_sessions import SessionMixin


class Visits(SessionMixin, RequestHandler):
    def get(self) -> None:
        self.session["visits"] = self.session.get("visits", 0) + 1
        self.write(f"visit number {self.session['visits']}\n")


async def main() -> None:
    secret, store = os.environ["COOKIE_SECRET"], "sqlite:///sessions.db"
    app = Application([(r"/", Visits)], cookie_secret=secret, session_store=store)
    app.listen(8888)
    await asyncio.Event().wait()


asyncio.run(main())
