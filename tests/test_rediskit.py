"""The servers that the tests of Redis start: each kind answers, by its driver."""

import signal
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
import redis

import rediskit
from rediskit import (
    DURABLE,
    MASTER,
    SMALL,
    RedisSentinel,
    RedisServer,
    ReplyError,
    eventually,
    shared_redis,
    shared_server,
)


def used(client):
    """Set a value and get it back."""
    with closing(client):
        assert client.set("key", "value")
        return client.get("key") == b"value"


@pytest.mark.parametrize("kind", ["standalone", "unix", "tls"])
def test_a_shared_server_serves(kind):
    """One server, reached over TCP, a Unix socket and TLS."""
    assert used(redis.Redis.from_url(shared_redis(kind)))
    assert shared_redis(kind) == shared_redis(kind)


def test_a_cluster_serves_from_every_node():
    """Three masters share the slots, and a driver finds them all from one."""
    cluster = shared_server("cluster")
    with closing(redis.RedisCluster("127.0.0.1", cluster.nodes[2].port)) as client:
        for number in range(30):
            client.set(f"key{number}", number)
        assert [int(client.get(f"key{n}")) for n in range(30)] == [*range(30)]
    for node in cluster.nodes:
        held = int(node.info("keyspace")["db0"].split(",")[0].removeprefix("keys="))
        assert held > 0
    assert cluster.owner("key1").command("GET", "key1") == "1"


def test_sentinels_name_the_master():
    """Three sentinels agree on the master, and its replica has what it has."""
    sentinels = shared_server("sentinel")
    places = [("127.0.0.1", one.port) for one in sentinels.sentinels]
    asked = redis.Sentinel(places)
    client = asked.master_for(MASTER)
    assert used(client)
    assert client.connection_pool.get_master_address()[1] == sentinels.master().port
    for one in asked.sentinels:
        one.close()
    replica = sentinels.replica()
    eventually(lambda: replica.command("GET", "key") == "value", "it is replicated")


def test_a_killed_master_is_replaced():
    """Sentinels promote the replica when the master dies."""
    with RedisSentinel() as sentinels:
        old = sentinels.master()
        old.kill()
        new = sentinels.promoted(old)
        assert new.command("SET", "key", "new") == "OK"
        assert sentinels.master() is new
        assert sentinels.replica() is old


def test_what_a_durable_server_acknowledged_survives_a_kill():
    """With AOF and fsync always, ``kill -9`` and a restart lose nothing."""
    with RedisServer(*DURABLE) as server:
        port = server.port
        for number in range(100):
            server.command("SET", f"key{number}", number)
        server.kill()
        with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
            server.command("PING")
        assert server.restart().port == port
        assert server.command("DBSIZE") == 100


def test_a_paused_server_hangs_and_goes_on():
    """After SIGSTOP nothing is answered, after SIGCONT everything is."""
    with RedisServer() as server:
        server.pause()
        with pytest.raises(TimeoutError):
            server.command("PING", patience=0.1)
        server.resume()
        assert server.command("PING") == "PONG"


def test_a_full_server_refuses_to_write():
    """With ``noeviction`` a server that has no memory left says so."""
    with RedisServer(*SMALL) as server:
        with pytest.raises(ReplyError, match="OOM"):
            _fill(server)
        assert server.command("GET", 0) == "x" * 100_000


def test_passwords_and_users():
    """A server with a password, and one with a user who may do little."""
    with RedisServer(password="pass word") as server:
        assert used(redis.Redis.from_url(server.url))
        wrong = redis.Redis.from_url(server.url_of("", "wrong"))
        with closing(wrong), pytest.raises(redis.AuthenticationError):
            wrong.get("key")
    user = ("--user", "app", "on", ">secret", "~app:*", "+@read", "+@write")
    with RedisServer(*user) as server:
        limited = redis.Redis.from_url(server.url_of("app", "secret"))
        with closing(limited):
            limited.set("app:key", "value")
            with pytest.raises(redis.exceptions.NoPermissionError):
                limited.get("key")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_server_is_left_behind(how):
    """A run of the tests that ends, even by ``kill -9``, leaves no server."""
    command = [sys.executable, rediskit.__file__, "standalone"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as run:
        url = run.stdout.readline().strip()
        client = redis.Redis.from_url(url)
        with closing(client):
            folder = Path(client.config_get("dir")["dir"])
            pid = int(client.info("server")["process_id"])
        run.send_signal(how)
        run.wait(rediskit.PATIENCE)
    eventually(lambda: _gone(pid), "the server is gone")
    rediskit.shutil.rmtree(folder, ignore_errors=True)


def _fill(server):
    for number in range(100):
        server.command("SET", number, "x" * 100_000)


def _gone(pid):
    with suppress(FileNotFoundError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "Z"
    return True
