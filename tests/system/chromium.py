"""A real Chromium without a screen, driven by its DevTools protocol."""

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any, Self

from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.waiting import until

_ANSWER_SECONDS = 30.0
_MOST_BYTES = 64 * 1024 * 1024
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--remote-debugging-port=0", "--no-first-run", "--hide-scrollbars"),
)
NAMES = ("chromium", "chromium-browser", "google-chrome")


class Chromium:
    """One page in a browser of its own; it ends with its block.

    Args:
        folder: Empty, for its profile.
        width, height: Of the page.
    """

    def __init__(self, folder: Path, width: int = 1440, height: int = 900) -> None:
        self._folder = folder
        self._size = (width, height)
        self._runner = asyncio.Runner()
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._password: tuple[str, str] | None = None
        self.status = 0
        """Of the last page that was loaded."""

    def __enter__(self) -> Self:
        program = next((found for name in NAMES if (found := shutil.which(name))), None)
        assert program, "There is no Chromium: make test-system installs it."
        width, height = self._size
        command = [program, *OPTIONS, f"--window-size={width},{height}"]
        command += [f"--user-data-dir={self._folder}", "about:blank"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self._socket = self._runner.run(self._connected(until(self._page)))
            for domain in ("Page", "Network", "Runtime"):
                self.ask(f"{domain}.enable")
            self.ask("Fetch.enable", handleAuthRequests=True)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._runner.run(self._closed())
        finally:
            self._end()

    def _end(self) -> None:
        self._runner.close()
        self._process.kill()
        self._process.wait()

    def sign_in(self, user: str, password: str) -> None:
        """Answer what asks for a password from now on."""
        self._password = (user, password)

    def open(self, url: str) -> int:
        """Load a page; returns its status."""
        self.status = 0
        self.ask("Page.navigate", url=url)
        until(lambda: self.evaluate("document.readyState") == "complete" and self.status)
        return self.status

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression of JavaScript in the page, or of its promise."""
        answer = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self) -> str:
        """Return what a person reads on the page."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def picture(self) -> bytes:
        """Return a picture of the page, as PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol; returns its answer."""
        return self._runner.run(asyncio.wait_for(self._ask(method, parameters), _ANSWER_SECONDS))

    def _page(self) -> str:
        """Return where the page is driven, once the browser says so."""
        port_file = self._folder / "DevToolsActivePort"
        if not port_file.is_file() or not (lines := port_file.read_text().splitlines()):
            return ""
        with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
            pages = [one for one in json.load(answer) if one["type"] == "page"]
        return str(pages[0]["webSocketDebuggerUrl"]) if pages else ""

    async def _connected(self, url: str) -> WebSocketClientConnection:
        return await websocket_connect(url, max_message_size=_MOST_BYTES)

    async def _closed(self) -> None:
        self._socket.close()
        while await self._socket.read_message() is not None:
            pass

    async def _ask(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        number = await self._send(method, parameters)
        while number not in self._answers:
            await self._hear()
        answer = self._answers.pop(number)
        assert "error" not in answer, answer
        return dict(answer["result"])

    async def _send(self, method: str, parameters: dict[str, Any]) -> int:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        await self._socket.write_message(json.dumps(message))
        return number

    async def _hear(self) -> None:
        text = await self._socket.read_message()
        assert text is not None, "The browser has ended."
        message = json.loads(text)
        if "id" in message:
            self._answers[message["id"]] = message
            return
        given = message["params"]
        match message["method"]:
            case "Fetch.requestPaused":
                await self._send("Fetch.continueRequest", {"requestId": given["requestId"]})
            case "Fetch.authRequired":
                answer = {"requestId": given["requestId"], "authChallengeResponse": self._login()}
                await self._send("Fetch.continueWithAuth", answer)
            case "Network.responseReceived" if given["type"] == "Document":
                self.status = given["response"]["status"]

    def _login(self) -> dict[str, str]:
        if self._password is None:
            return {"response": "CancelAuth"}
        (user, password), self._password = self._password, None
        return {"response": "ProvideCredentials", "username": user, "password": password}
