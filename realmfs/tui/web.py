"""`python -m realmfs.tui.web PORT SOCKET [CONFIG]`: the interface in a browser of this machine.

Whoever may see the page may act as the user: log in, discard, open what is cached. So it listens on the
loopback only, and all of it, the page, its files and its line, lies below a secret word in the address, which
is made anew at each start and shown to nobody but the user. Without the word there is nothing but 404. The
page is kept from telling the address to anyone (no referrer, nothing loaded from elsewhere), and a name that
was made to lead here (DNS rebinding) is refused. Each viewer has an interface of its own, of at most VIEWERS.
"""

import hmac
import secrets
import shlex
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from textual_serve.server import Server

VIEWERS = 8
HOST = "127.0.0.1"

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; font-src 'self' data:; connect-src 'self' ws://{host}; frame-ancestors 'none'"
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WebView(Server):
    """Serves `command`, a program of Textual, below the secret `word` at `port`."""

    def __init__(self, command: str, port: int, word: str | None = None) -> None:
        self.word = word or secrets.token_urlsafe(24)
        self._viewers = 0
        super().__init__(command, HOST, port, title="realmfs")

    @property
    def address(self) -> str:
        """What to open in the browser."""
        return f"{self.public_url}/{self.word}/"

    async def on_startup(self, app: web.Application) -> None:
        """Say nothing: `main` tells the address."""

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Give a viewer an interface of its own."""
        if self._viewers >= VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"{VIEWERS} are looking already")
        self._viewers += 1
        try:
            return await super().handle_websocket(request)
        finally:
            self._viewers -= 1

    async def whole(self) -> web.Application:
        """Return the application with everything below the secret word."""
        outer = web.Application(middlewares=[self._guard])
        outer.on_response_prepare.append(_quiet)
        outer.add_subapp(f"/{self.word}", await self._make_app())
        return outer

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        host = f"{HOST}:{self.port}"
        word = request.path.split("/")[1]
        if not hmac.compare_digest(word.encode(), self.word.encode()) or request.host != host:
            raise web.HTTPNotFound
        if request.headers.get("Origin", self.public_url) != self.public_url:
            raise web.HTTPForbidden
        return await handler(request)


async def _quiet(request: web.Request, response: web.StreamResponse) -> None:
    """Keep the address to ourselves, in whatever is answered."""
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = _POLICY.format(host=request.host)


def listener(port: int) -> socket.socket:
    """Return a socket that listens at a port of the loopback; 0: at one that is free. Raises OSError."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((HOST, port))
        made.listen()
    except OSError:
        made.close()
        raise
    return made


def main() -> None:
    """Serve until interrupted."""
    port, *rest = sys.argv[1:]
    try:
        made = listener(int(port))
    except OSError as error:
        raise SystemExit(
            f"Error: port {port} cannot be used: {error.strerror}. Name another: --port"
        ) from None
    command = shlex.join([sys.executable, "-m", "realmfs.tui", *(str(Path(each)) for each in rest)])
    view = WebView(command, made.getsockname()[1])
    print(
        f"The interface is at {view.address}",
        "Keep the address to yourself. Ctrl+C ends.",
        sep="\n",
        flush=True,
    )
    web.run_app(view.whole(), sock=made, print=lambda *_: None, access_log=None)


if __name__ == "__main__":
    main()
