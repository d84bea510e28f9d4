"""A Redis Cluster of the embedded server's binary on this machine, for trials and for tests."""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import redis
import redis.exceptions

from ops.embedded.launch import LOOPBACK, free_port, write_private
from ops.embedded.local_servers import answers, ask, start, until
from worker.contract.redis.slots import SLOTS
from worker.errors import RedisUnavailable

_MASTERS: Final = 3
_READY_SECONDS: Final = 60.0
_END_SECONDS: Final = 10.0
_TRIES: Final = 5
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
save ""
maxmemory-policy noeviction
repl-diskless-sync-delay 0
repl-timeout 10
"""


@dataclass(slots=True)
class LocalCluster:
    """Masters of a Redis Cluster, by default with replicas, which run until the `with` block ends.

    Args:
        folder: Where the nodes keep their files; what an earlier one left there goes on.
        node_ms: How long a node may be silent before it counts as lost.
        password: Of all nodes; where an earlier one left its files, it is the one of then.
    """

    folder: Path
    node_ms: int = 5_000
    password: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    replicas: bool = True
    nodes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

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
                bus=free_port(),
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
        ports = known or [free_port() for _ in range(2 * _MASTERS if self.replicas else _MASTERS)]
        for port in ports:
            self.start_node(port)
        ports = [self._started(port, tries=1 if known else _TRIES) for port in ports]
        if not known:
            self._join(ports)
        self.await_replicas()

    def _started(self, port: int, *, tries: int) -> int:
        """Wait for a node and return its port; if the port was taken, start it on another."""
        node = self.nodes[port]
        until(
            lambda: answers(port, self.password) or node.poll() is not None,
            _READY_SECONDS,
            "a node",
        )
        if node.poll() is None:
            return port
        if tries <= 1:
            raise RedisUnavailable(f"A node does not start; see {self.folder / str(port) / 'log'}.")
        del self.nodes[port]
        shutil.rmtree(self.folder / str(port))
        other = free_port()
        self.start_node(other)
        return self._started(other, tries=tries - 1)

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
        with suppress(redis.exceptions.RedisError):
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
        return ask(port, self.password, *words)
