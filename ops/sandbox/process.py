"""The sandbox as a child process, for tests, demonstrations and rehearsals."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any, Final, Self

import httpx
import orjson

from worker.contract.own_processes import own_module
from worker.errors import OperationsMustAct

_START_SECONDS: Final = 15.0
_STOP_SECONDS: Final = 5.0
_LOOK_EVERY_SECONDS: Final = 0.05
_REQUEST_SECONDS: Final = 60.0

ProcessStarter = Callable[..., "subprocess.Popen[bytes]"]
"""A function that starts a process: `Popen`, or a faster one for our own modules."""


class SandboxProcess:
    """A sandbox in a child process, which ends with `close` or with this process.

    Args:
        port: 0 takes a free one.
    """

    def __init__(
        self, port: int = 0, *, launch: ProcessStarter = subprocess.Popen, **settings: Any
    ) -> None:
        command = own_module("ops.sandbox.command", "--port", str(port))
        command += ["--settings", orjson.dumps(settings).decode(), "--until-stdin-ends"]
        self._process = launch(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        try:
            self.url = self._read_url()
            self._client = httpx.Client(base_url=self.url, timeout=_REQUEST_SECONDS)
            self._wait_until_healthy()
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Return the id of the process."""
        return self._process.pid

    def get(self, path: str, **query: Any) -> Any:
        """Return the report below `/_sandbox/`, e.g. `get("summary")`."""
        answer = self._client.get(f"/_sandbox/{path}", params=query or None)
        answer.raise_for_status()
        return orjson.loads(answer.content)

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Change switches and return all of them."""
        found: dict[str, Any] = self.post("settings", changes)
        return found

    def reset(self) -> None:
        """Forget everything in the sandbox but its switches."""
        self.post("reset", {})

    def wait(self, timeout_seconds: float) -> int:
        """Wait until the sandbox ends by itself, and return its exit status."""
        return self._process.wait(timeout_seconds)

    def close(self) -> None:
        """End the sandbox's process, and wait for its end."""
        self._client.close()
        self._end()

    def post(self, path: str, value: Any) -> Any:
        """Post a value below `/_sandbox/`, and return the answer."""
        answer = self._client.post(f"/_sandbox/{path}", content=orjson.dumps(value))
        if answer.is_error:
            raise ValueError(answer.json()["error"])
        return orjson.loads(answer.content)

    def _read_url(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode().strip()
        if not line:
            raise OperationsMustAct(f"the sandbox ended with status {self._process.wait()}")
        return line

    def _wait_until_healthy(self) -> None:
        gives_up_at = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.get("health")
            except httpx.TransportError:
                if time.monotonic() > gives_up_at:
                    raise
                time.sleep(_LOOK_EVERY_SECONDS)
            else:
                return

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
