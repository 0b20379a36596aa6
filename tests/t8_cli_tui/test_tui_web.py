"""The interface in a browser: what is served, and to whom."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from realmfs.tui.web import WebView, listener
from tests.t8_cli_tui.conftest import Home


@asynccontextmanager
async def serving(command: str = "true") -> AsyncIterator[WebView]:
    """A view at a free port."""
    made = listener(0)
    assert made.getsockname()[0] == "127.0.0.1"
    served = WebView(command, made.getsockname()[1])
    runner = web.AppRunner(await served.whole())
    await runner.setup()
    await web.SockSite(runner, made).start()
    try:
        yield served
    finally:
        await runner.cleanup()


def test_nothing_is_there_without_the_secret_word() -> None:
    async def run() -> None:
        async with serving() as served, aiohttp.ClientSession() as browser:

            async def status(path: str, **headers: str) -> int:
                async with browser.get(f"{served.public_url}{path}", headers=headers) as answer:
                    return answer.status

            word = served.word
            assert len(word) >= 32
            assert await status(f"/{word}/") == 200
            assert await status(f"/{word}/static/js/textual.js") == 200
            for path in ("/", "/ws", "/static/js/textual.js", f"/{word[:-1]}/", f"/{word}x/", f"//{word}/"):
                assert await status(path) == 404, path
            assert await status(f"/{word}/", Host="evil.example:80") == 404
            assert await status(f"/{word}/ws", Origin="http://evil.example") == 403

    asyncio.run(run())


def test_the_page_tells_its_address_to_nobody() -> None:
    async def run() -> None:
        async with serving() as served, aiohttp.ClientSession() as browser:
            async with browser.get(served.address) as answer:
                policy, page = answer.headers["Content-Security-Policy"], await answer.text()
                assert answer.headers["Referrer-Policy"] == "no-referrer"
                assert answer.headers["Cache-Control"] == "no-store"
            assert "default-src 'self'" in policy
            assert "http:" not in policy
            assert f"ws://127.0.0.1:{served.port}/{served.word}/ws" in page

    asyncio.run(run())


def test_only_so_many_may_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realmfs.tui.web.VIEWERS", 0)

    async def run() -> None:
        async with serving() as served, aiohttp.ClientSession() as browser:
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                await browser.ws_connect(f"{served.address}ws")

    asyncio.run(run())


def test_a_browser_sees_the_interface_and_its_keys_arrive(home: Home) -> None:
    home.run("mount", "--no-kernel", "--dns", "127.0.0.1:9")
    argv = [sys.executable, "-m", "realmfs", "tui", "--web", "--socket", str(home.socket)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=home.environment) as process:
        try:
            assert process.stdout is not None
            match = re.search(r"http://127\.0\.0\.1:\d+/\S+/", process.stdout.readline())
            assert match is not None
            asyncio.run(_look(match[0]))
        finally:
            process.terminate()
            process.wait(10)


async def _look(address: str) -> None:
    async with (
        asyncio.timeout(30),
        aiohttp.ClientSession() as browser,
        browser.ws_connect(f"{address}ws?width=100&height=30") as line,
    ):
        await _until_painted(line, b"no server yet")
        await line.send_json(["stdin", "5"])
        await _until_painted(line, b"Tokens")


async def _until_painted(line: aiohttp.ClientWebSocketResponse, text: bytes) -> None:
    painted = b""
    async for message in line:
        painted += message.data if isinstance(message.data, bytes) else b""
        if text in re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", painted):
            return
    raise AssertionError(f"{text!r} was not painted")


def test_a_port_that_is_taken_is_said(home: Home) -> None:
    made = listener(0)
    made.listen()
    port = str(made.getsockname()[1])
    said = home.run("tui", "--web", "--port", port, status=1)
    made.close()
    assert f"port {port} cannot be used" in said
    assert "Traceback" not in said
