"""Headless Chromium, driven over its debugging protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp

from pyglyn.testing import eventually, require

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
START_S = 60.0


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def command(self, method: str, **parameters: Any) -> Any:
        """A command of the protocol; its result. Events are dropped."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            answer = json.loads((await self._socket.receive(timeout=START_S)).data)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    async def eval(self, script: str) -> Any:
        """The value of an expression."""
        answer = await self.command(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def open(self, url: str) -> None:
        """Go to an address."""
        await self.command("Page.navigate", url=url)

    async def shows(self, pattern: str, where: str = "body", timeout: float = 60.0) -> str:
        """Wait until the text of an element has some text in it; that text."""
        script = f"document.querySelector({json.dumps(where)})?.innerText ?? ''"

        async def found() -> str:
            text: str = await self.eval(script)
            assert pattern in text, text
            return text

        return await eventually(found, timeout)

    async def size(self, width: int, height: int, dark: bool = False) -> None:
        """How large the window is, and which colours the user prefers."""
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.command("Emulation.setEmulatedMedia", features=[scheme])

    async def press(self, key: str) -> None:
        """Press a key and let go of it."""
        for kind in ("keyDown", "keyUp"):
            await self.command("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    async def photograph(self) -> bytes:
        """What it looks like, as PNG."""
        answer = await self.command("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["data"])


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[int]:
    """Start the browser; its debugging port."""
    require(CHROMIUM, "Chromium is missing (Debian's chromium)")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    process = subprocess.Popen(
        [*command, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield _port(folder / "DevToolsActivePort", process)
    finally:
        process.kill()
        process.wait()


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    def written() -> str:
        assert process.poll() is None, "the browser ended"
        return file.read_text() if file.exists() else ""

    return int(asyncio.run(eventually(written, START_S)).splitlines()[0])


@contextlib.asynccontextmanager
async def tab(port: int) -> AsyncIterator[Page]:
    """A new tab of a browser."""
    async with aiohttp.ClientSession() as session:
        async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as answer:
            about = await answer.json()
        async with session.ws_connect(about["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            page = Page(socket)
            await page.command("Page.enable")
            yield page
            await page.command("Page.close")
