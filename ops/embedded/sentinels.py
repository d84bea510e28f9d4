"""Three Sentinels with a master and two replicas, all of the embedded server's binary."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import redis
import redis.exceptions

from ops.embedded.launch import free_port
from ops.embedded.local_servers import answers, ask, start, until

SERVICE: Final = "main"
USER: Final = "events"
PASSWORD: Final = "s3cret:/@"  # noqa: S105 - of servers that live as long as a test
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
class Sentinels:
    """Sentinels, a master and its replicas, which run until the `with` block ends."""

    folder: Path
    lines: str = "min-replicas-to-write 1\nmin-replicas-max-lag 2"
    sentinels: int = 3
    servers: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    guards: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        """Start the Sentinels, the master and its replicas."""
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

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
            with suppress(redis.exceptions.RedisError):
                role = self._ask_server(self.master(), "ROLE")
                return bool(
                    role[0] == b"master"
                    and len(role[2]) >= count
                    and all(self._number(guard, b"num-slaves") >= count for guard in self.guards)
                )
            return False

        until(there, _WAIT_SECONDS, "the replicas")

    def _start(self) -> None:
        master, *replicas = (free_port() for _ in range(3))
        self.start_server(master)
        for port in replicas:
            self.start_server(port, master)
        until(lambda: answers(master, PASSWORD), _WAIT_SECONDS, "the master")
        text = _SENTINEL.format(
            guard=GUARD, service=SERVICE, master=master, password=PASSWORD, down_ms=DOWN_MS
        )
        for _ in range(self.sentinels):
            port = free_port()
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
        except redis.exceptions.ResponseError:
            return False  # the last one is not over yet, or no replica is good enough

    def _tuned(self, guard: int) -> bool:
        try:
            for name, value in _DEBUG.items():
                self._ask(guard, "SENTINEL", "DEBUG", name, value)
        except redis.exceptions.ConnectionError:
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
        return ask(guard, GUARD, *words)

    def _ask_server(self, port: int, *words: Any) -> Any:
        return ask(port, PASSWORD, *words)
