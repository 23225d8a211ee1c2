"""A server with sessions as a process of its own: to be raced against, and killed.

Run as ``python serverkit.py STORE_URL``, it serves on a free port of 127.0.0.1, prints
that port, and ends with its standard input. Settings may follow, as the repr of a dict.
"""

import ast
import asyncio
import signal
import subprocess
import sys
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
SECRET = "only for the tests, and long enough for that"
PATIENCE = 30.0

if __name__ == "__main__":  # the working tree, unless it is installed
    sys.path.append(str(ROOT))

from tornado.httpserver import HTTPServer  # noqa: E402
from tornado.netutil import bind_sockets  # noqa: E402
from tornado.web import Application, RequestHandler  # noqa: E402

from tornado_sessions import SessionManager, SessionMixin  # noqa: E402


class Read(SessionMixin, RequestHandler):
    """What the session holds."""

    def get(self):
        values, principal = dict(self.session), self.session.principal
        self.write({"values": values, "principal": principal})


class Set(SessionMixin, RequestHandler):
    """Set each argument as a key."""

    def post(self):
        for name in self.request.arguments:
            self.session[name] = self.get_argument(name)


class Count(SessionMixin, RequestHandler):
    """Count one key up, atomically."""

    async def post(self, key):
        counted = await self.session.mutate(key, lambda number: number + 1, 0)
        self.write({"counted": counted})


class Login(SessionMixin, RequestHandler):
    def post(self, name):
        self.session.login(name)


class Logout(SessionMixin, RequestHandler):
    def post(self):
        self.session.destroy()


class Gate:
    """Where a slow request waits: it says that it is there, and is let go."""

    def __init__(self):
        self.reached, self.released = asyncio.Event(), asyncio.Event()


GATES: defaultdict[str, Gate] = defaultdict(Gate)


class SlowSet(Set):
    """Loads the session, waits at a gate, and sets what the arguments say."""

    async def post(self, gate):
        super().post()
        GATES[gate].reached.set()
        await GATES[gate].released.wait()


class Await(RequestHandler):
    """Answers when a slow request is at the gate."""

    async def post(self, gate):
        await GATES[gate].reached.wait()


class Release(RequestHandler):
    def post(self, gate):
        GATES[gate].released.set()


def application(store, **settings):
    routes = [
        ("/", Read),
        ("/set", Set),
        ("/count/(.+)", Count),
        ("/login/(.+)", Login),
        ("/logout", Logout),
        ("/slow/(.+)", SlowSet),
        ("/await/(.+)", Await),
        ("/release/(.+)", Release),
    ]
    settings = {"cookie_secret": SECRET, "session_store": store, **settings}
    return Application(routes, **settings)


async def main(store, settings="{}"):
    app = application(store, **ast.literal_eval(settings))
    (socket,) = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(app)
    server.add_sockets([socket])
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    loop.add_reader(sys.stdin, over.set)  # the parent is gone
    print(socket.getsockname()[1], flush=True)
    await over.wait()
    server.stop()
    await SessionManager.of(app).close()


class Server:
    """One server process; started at once, asked for its port when it is needed."""

    def __init__(self, store, **settings):
        command = [sys.executable, __file__, store, repr(settings)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._url = None

    @property
    def url(self):
        """Where it serves; waits until it does."""
        if self._url is None:
            port = self.process.stdout.readline().strip()
            assert port, "the server did not start"
            self._url = f"http://127.0.0.1:{port}"
        return self._url

    def end(self, how=signal.SIGTERM):
        """Send *how* and wait until the process is gone; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.process.stdin.close()
            self.process.stdout.close()


@contextmanager
def servers(store, count):
    """Run *count* server processes on one store; yield their URLs."""
    with ExitStack() as stack:
        started = [Server(store) for _ in range(count)]
        for server in started:
            stack.callback(server.end)
        yield [server.url for server in started]


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
