"""A Redis Cluster, and three Sentinels with a master and two replicas, on this machine.

All are of the embedded server's binary.
"""

from __future__ import annotations

import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import redis.connection

from segrelay.ops.embedded import LOOPBACK, find_server, write_private
from segrelay.ops.terminal.moments import awaited
from segrelay.worker.contract.redis.client import RedisError, redis_errors
from segrelay.worker.contract.redis.connection import TIMEOUT_SECONDS
from segrelay.worker.contract.redis.masters import SLOTS
from segrelay.worker.errors import RedisUnavailable
from tests.ports import own_port
from tests.waiting import allowed


def start(config: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start a Redis server; only the user who starts it may read the files that it writes."""
    return subprocess.Popen(
        [find_server(), config, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        umask=0o077,
    )


def ask_server(port: int, password: str, *words: str | int) -> Any:
    """Ask a server on this machine, and return the answer as it comes, which a client converts."""
    connection: Any = redis.connection.Connection(  # type: ignore[no-untyped-call]
        LOOPBACK,
        port,
        password=password,
        socket_timeout=TIMEOUT_SECONDS,
        protocol=2,
        driver_info=None,
    )
    try:
        with redis_errors():
            connection.send_command(*words)
            return connection.read_response()
    finally:
        connection.disconnect()


def answers(port: int, password: str) -> bool:
    """Say whether the server at a port answers to PING."""
    try:
        return bool(ask_server(port, password, "PING"))
    except (RedisUnavailable, RedisError):
        return False


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until a condition is true; raise an error that names `what` when it takes too long.

    Args:
        condition: Asked again and again.
        seconds: The most that it takes on a quiet machine, see `allowed`.
        what: What is waited for, in words.
    """
    if not awaited(condition, allowed(seconds)):
        raise RedisUnavailable(f"Waited {seconds:g} s for {what} in vain.")


_MASTERS: Final = 3
_READY_SECONDS: Final = 60.0
_END_SECONDS: Final = 10.0
_KEYS_AT_ONCE: Final = 100
_MIGRATE_MS: Final = 5_000
_CONFIG: Final = """\
bind {host}
port {port}
cluster-port {bus}
cluster-enabled yes
cluster-config-file nodes.conf
cluster-node-timeout {node_ms}
cluster-replica-validity-factor 0
cluster-require-full-coverage no
cluster-allow-replica-migration no
requirepass "{password}"
primaryauth "{password}"
dir "{folder}"
logfile "{folder}/log"
appendonly yes
appendfsync always
hash-max-listpack-entries 64
stream-node-max-bytes 8192
save ""
maxmemory-policy noeviction
repl-diskless-sync-delay 0
repl-timeout 10
"""


class _Servers:
    """What is started at the begin of a `with` block, and ended if that fails."""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self


@dataclass(slots=True)
class LocalCluster(_Servers):
    """Masters of a Redis Cluster, by default with replicas, which run until the `with` block ends.

    Args:
        folder: The folder of the nodes' files; what an earlier one left there goes on.
        node_ms: The time for which a node may be silent before it counts as lost.
        password: Of all nodes; where an earlier one left its files, it is the one of then.
    """

    folder: Path
    node_ms: int = 5_000
    password: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    replicas: bool = True
    nodes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __exit__(self, *_: object) -> None:
        for process in self.nodes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.nodes.values():
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def url(self) -> str:
        """The URL of the cluster, in the form that the setting `redis.url` takes."""
        hosts = ",".join(f"{LOOPBACK}:{port}" for port in self.nodes)
        return f"redis+cluster://:{self.password}@{hosts}"

    def start_node(self, port: int) -> None:
        """Start a node, or start one again on its files."""
        folder = self.folder / str(port)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        config = folder / "server.conf"
        if not config.exists():
            text = _CONFIG.format(
                host=LOOPBACK,
                port=port,
                bus=own_port(),
                node_ms=self.node_ms,
                password=self.password,
                folder=folder,
            )
            write_private(config, text.encode())
        self.nodes[port] = start(config)

    def kill_node(self, port: int) -> None:
        """End a node with SIGKILL."""
        self.nodes[port].kill()
        self.nodes[port].wait()

    def owner(self, slot: int) -> int:
        """Return the port of the master that has a slot, as most of the running nodes say."""
        said = [self._owner_told_by(port, slot) for port in self._running()]
        return max(set(said), key=said.count)

    def masters(self) -> list[int]:
        """Return the ports of all masters that have slots."""
        told = self._ask(self._running()[0], "CLUSTER", "SLOTS")
        return sorted({int(servers[0][1]) for _, _, *servers in told})

    def await_other_owner(self, slot: int, before: int) -> int:
        """Wait until all running nodes name another master for a slot; return its port."""

        def named() -> bool:
            said = {self._owner_told_by(port, slot) for port in self._running()}
            return len(said) == 1 and before not in said

        until(named, _READY_SECONDS, "another master")
        return self.owner(slot)

    def empty(self) -> None:
        """Remove all keys."""
        for port in self.masters():
            self._ask(port, "FLUSHALL")

    def await_replicas(self, seconds: float = _READY_SECONDS) -> None:
        """Wait until each master has a replica that follows it, as all nodes say."""
        until(self._is_whole, seconds, "all replicas")

    def move_slot(self, slot: int, target: int) -> None:
        """Move a slot key by key, as `redis-cli --cluster reshard` does."""
        with self.moving(slot, target) as move_some:
            while move_some(_KEYS_AT_ONCE):
                pass

    @contextmanager
    def moving(self, slot: int, target: int) -> Iterator[Callable[[int], int]]:
        """Begin to move a slot; yield a function that moves the given number of its keys.

        At its end the slot is the target's, so all keys must have been moved.
        """
        source = self.owner(slot)
        ids = {port: self._ask(port, "CLUSTER", "MYID") for port in (source, target)}
        self._ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        self._ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])

        def move_some(count: int) -> int:
            keys = self._ask(source, "CLUSTER", "GETKEYSINSLOT", slot, count)
            if keys:
                of = ("MIGRATE", LOOPBACK, target, "", 0, _MIGRATE_MS, "AUTH", self.password)
                self._ask(source, *of, "KEYS", *keys)
            return len(keys)

        yield move_some
        for port in (target, source, *(set(self.masters()) - {target, source})):
            self._ask(port, "CLUSTER", "SETSLOT", slot, "NODE", ids[target])

    def _start(self) -> None:
        known = sorted(int(path.name) for path in self.folder.glob("[0-9]*"))
        if known:
            self.password = self._written(known[0], "requirepass").strip('"')
        ports = known or [own_port() for _ in range(2 * _MASTERS if self.replicas else _MASTERS)]
        for port in ports:
            self.start_node(port)
        for port in ports:
            told = f"the node of {self.folder / str(port)}"
            until(partial(answers, port, self.password), _READY_SECONDS, told)
        if not known:
            self._join(ports)
        self.await_replicas()

    def _join(self, ports: list[int]) -> None:
        first, *others = ports
        masters = ports[:_MASTERS]
        for number, port in enumerate(ports, start=1):
            self._ask(port, "CLUSTER", "SET-CONFIG-EPOCH", number)
        for at, port in enumerate(masters):
            begin, end = (SLOTS * edge // _MASTERS for edge in (at, at + 1))
            self._ask(port, "CLUSTER", "ADDSLOTSRANGE", begin, end - 1)
        for port in others:
            self._ask(
                port, "CLUSTER", "MEET", LOOPBACK, first, int(self._written(first, "cluster-port"))
            )
        for port in ports:
            until(lambda port=port: self._knows(port) == len(ports), _READY_SECONDS, "the nodes")  # type: ignore[misc]
        for master, port in zip(masters, ports[_MASTERS:], strict=False):
            self._ask(port, "CLUSTER", "REPLICATE", self._ask(master, "CLUSTER", "MYID"))

    def _written(self, port: int, name: str) -> str:
        config = (self.folder / str(port) / "server.conf").read_text("utf-8")
        return config.partition(f"\n{name} ")[2].split()[0]

    def _running(self) -> list[int]:
        return [
            port
            for port, node in self.nodes.items()
            if node.poll() is None and answers(port, self.password)
        ]

    def _owner_told_by(self, port: int, slot: int) -> int:
        for first, last, master, *_ in self._ask(port, "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return int(master[1])
        return 0

    def _is_whole(self) -> bool:
        with suppress(RedisUnavailable, RedisError):
            return all(self._is_well(port) for port in self.nodes)
        return False

    def _is_well(self, port: int) -> bool:
        role = self._ask(port, "ROLE")
        told = self._ask(port, "CLUSTER", "INFO")
        follows = role[3] == b"connected" if role[0] == b"slave" else bool(role[2])
        follows |= not self.replicas
        masters = {int(servers[0][1]) for _, _, *servers in self._ask(port, "CLUSTER", "SLOTS")}
        return follows and b"cluster_state:ok" in told and len(masters) == _MASTERS

    def _knows(self, port: int) -> int:
        return len(self._ask(port, "CLUSTER", "NODES").splitlines())

    def _ask(self, port: int, *words: Any) -> Any:
        return ask_server(port, self.password, *words)


SERVICE: Final = "main"
USER: Final = "events"
PASSWORD: Final = "s3cret:/@"
GUARD: Final = "gu?rd"
DOWN_MS: Final = 1_000
_WAIT_SECONDS: Final = 30.0
_BASE: Final = """\
bind 127.0.0.1
port {port}
dir "{folder}"
logfile "{folder}/log"
"""
_SERVER: Final = """\
requirepass "{password}"
user {user} on ">{password}" ~* &* +@all
primaryauth "{password}"
appendonly yes
appendfsync always
hash-max-listpack-entries 64
stream-node-max-bytes 8192
save ""
repl-diskless-sync-delay 0
repl-timeout 5
{more}
"""
_SENTINEL: Final = """\
requirepass "{guard}"
sentinel sentinel-pass "{guard}"
sentinel monitor {service} 127.0.0.1 {master} 2
sentinel auth-pass {service} "{password}"
sentinel down-after-milliseconds {service} {down_ms}
sentinel failover-timeout {service} 6000
"""
_DEBUG: Final = {
    # A busy machine makes a Sentinel believe that its clock jumped: it then does nothing for long.
    "tilt-trigger": 60_000,
    "info-period": 200,
    "ping-period": 200,
    "ask-period": 200,
    "publish-period": 300,
    "election-timeout": 2_000,
    "min-link-reconnect-period": 500,
    "slave-reconf-timeout": 2_000,
}


@dataclass(slots=True)
class Sentinels(_Servers):
    """Sentinels, a master and its replicas, which run until the `with` block ends."""

    folder: Path
    lines: str = "min-replicas-to-write 1\nmin-replicas-max-lag 2"
    sentinels: int = 3
    down_ms: int = DOWN_MS
    servers: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    guards: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __exit__(self, *_: object) -> None:
        """End the Sentinels, the master and its replicas."""
        for process in (*self.guards.values(), *self.servers.values()):
            process.kill()
        for process in (*self.guards.values(), *self.servers.values()):
            process.wait()

    @property
    def url(self) -> str:
        """The URL in the form that `redis.url` takes; the first Sentinel in it does not run."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in (1, *self.guards))
        return (
            f"redis+sentinel://{USER}:s3cret%3A%2F%40@{hosts}/{SERVICE}/0?sentinel_password=gu%3Frd"
        )

    def master(self) -> int:
        """Return the port of the master that most Sentinels name."""
        ports = [port for port in self._named() if port]
        return max(set(ports), key=ports.count)

    def kill_master(self) -> int:
        """End the master with SIGKILL; returns its port."""
        port = self.master()
        self.servers[port].kill()
        self.servers[port].wait()
        return port

    def start_server(self, port: int, master: int = 0) -> None:
        """Start a server, or start one again on its files."""
        follows = f"replicaof 127.0.0.1 {master}" if master else ""
        text = _SERVER.format(password=PASSWORD, user=USER, more=f"{self.lines}\n{follows}")
        self.servers[port] = self._started(port, text)

    def fail_over(self) -> None:
        """Make the Sentinels replace a running master by a replica."""
        until(self._begins_failover, _WAIT_SECONDS, "the beginning of a failover")

    def await_other_master(self, before: int) -> int:
        """Wait until all Sentinels name another master that has taken its role; return its port."""
        until(lambda: not {0, before} & {*self._named()}, _WAIT_SECONDS, "another master")
        port = self.master()
        until(
            lambda: self._ask_server(port, "ROLE")[0] == b"master", _WAIT_SECONDS, "the new master"
        )
        return port

    def await_replicas(self, count: int) -> None:
        """Wait until the master has this many replicas that follow it, and all Sentinels know."""

        def there() -> bool:
            with suppress(RedisUnavailable, RedisError):
                role = self._ask_server(self.master(), "ROLE")
                return bool(
                    role[0] == b"master"
                    and len(role[2]) >= count
                    and all(self._number(guard, b"num-slaves") >= count for guard in self.guards)
                )
            return False

        until(there, _WAIT_SECONDS, "the replicas")

    def _start(self) -> None:
        master, *replicas = (own_port() for _ in range(3))
        self.start_server(master)
        for port in replicas:
            self.start_server(port, master)
        until(lambda: answers(master, PASSWORD), _WAIT_SECONDS, "the master")
        text = _SENTINEL.format(
            guard=GUARD, service=SERVICE, master=master, password=PASSWORD, down_ms=self.down_ms
        )
        for _ in range(self.sentinels):
            port = own_port()
            self.guards[port] = self._started(port, text, "--sentinel")
        for port in self.guards:
            until(partial(self._tuned, port), _WAIT_SECONDS, f"Sentinel {port}")
        self.await_replicas(len(replicas))
        until(
            lambda: (
                {self._number(port, b"num-other-sentinels") for port in self.guards}
                == {self.sentinels - 1}
            ),
            _WAIT_SECONDS,
            "the other Sentinels",
        )

    def _started(self, port: int, text: str, *options: str) -> subprocess.Popen[bytes]:
        folder = self.folder / str(port)
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "server.conf"
        config.write_text(_BASE.format(port=port, folder=folder) + text, encoding="utf-8")
        return start(config, *options)

    def _begins_failover(self) -> bool:
        try:
            return bool(
                self._ask(next(iter(self.guards)), "SENTINEL", "FAILOVER", SERVICE) == b"OK"
            )
        except (RedisUnavailable, RedisError):
            return False  # the last one is not over yet, or no replica is good enough

    def _tuned(self, guard: int) -> bool:
        try:
            for name, value in _DEBUG.items():
                self._ask(guard, "SENTINEL", "DEBUG", name, value)
        except RedisUnavailable:
            return False
        return True

    def _named(self) -> list[int]:
        """Return, for each Sentinel, the port of the master that it names; 0 = none."""
        ask = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        said = [self._ask(port, *ask) for port in self.guards]
        return [int(answer[1]) if isinstance(answer, list) else 0 for answer in said]

    def _number(self, guard: int, name: bytes) -> int:
        """Return a number from what a Sentinel reports about the master."""
        flat = self._ask(guard, "SENTINEL", "MASTER", SERVICE)
        return int(dict(zip(flat[::2], flat[1::2], strict=True))[name])

    def _ask(self, guard: int, *words: Any) -> Any:
        return ask_server(guard, GUARD, *words)

    def _ask_server(self, port: int, *words: Any) -> Any:
        return ask_server(port, PASSWORD, *words)
