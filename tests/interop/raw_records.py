"""Send a server records that realmfs would refuse to log; run on the rig's bare node.

    python -m tests.interop.raw_records HOST VOLUME TOKENFILE ROW...

Works in a new directory of the volume; prints {row: what the server answered} as JSON: the name of a code,
`SUCCESS`, or `dead` if it does not answer any more.
"""

import json
import random
import secrets
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from realmfs.rpc2.endpoint import Endpoint, udp_transport
from realmfs.rpc2.errors import RpcError
from realmfs.rpc2.service import Credentials, Level
from realmfs.vice import log
from realmfs.vice.errors import Code
from realmfs.vice.log import AnyRecord
from realmfs.vice.tokens import Token, parse_token_file
from realmfs.vice.types import FILE_SUBSYSTEM, Fid, ObjectType
from tests.t2b_server.harness import NOW, Client

Records = Callable[["Raw"], Awaitable[list[AnyRecord]]]


class Raw(Client):
    """The raw client at a real server, in a directory of its own with two files, a link and directories."""

    async def prepare(self, host: str, token: Token) -> None:
        """Log in and make the objects."""
        credentials = Credentials(Level.AUTHONLY, token.secret, token.clear.handshake_key, 1)
        self.connection = await self.endpoint.bind((host, 2432), FILE_SUBSYSTEM, credentials)
        await self.introduce()
        self.top = await self.make_directory(b"raw%s" % secrets.token_hex(4).encode())
        self.d = await self.make_directory(b"d", self.top)
        self.sub = await self.make_directory(b"sub", self.d)
        self.e = await self.make_directory(b"e", self.top)
        self.f = await self.make_file(b"f", b"x", self.top)
        self.h = await self.make_file(b"h1", b"x", self.top)
        await self.replay([self.link(b"h2", self.h, self.top)])
        self.l = await self.new_fid(ObjectType.SYMLINK)
        await self.replay([self.symlink_in(b"l", b"x", self.l)])

    def symlink_in(self, name: bytes, text: bytes, fid: Fid) -> log.SymLink:
        return log.SymLink(
            mtime=NOW, store_id=self.store_id(), parent=self.top, name=name, content=text, fid=fid, owner=0,
            mode=0o777,
        )  # fmt: skip

    def move(self, name: bytes, fid: Fid, to: Fid, new_name: bytes) -> log.Rename:
        return self.rename((self.top, name), (to, new_name), fid)

    def chown(self, fid: Fid) -> log.Chown:
        return log.Chown(mtime=NOW, store_id=self.store_id(), fid=fid, owner=4711)


async def _new_directory(raw: Raw, name: bytes) -> list[AnyRecord]:
    return [raw.mkdir(name, await raw.new_fid(ObjectType.DIRECTORY), raw.top)]


async def _new_link(raw: Raw, text: bytes) -> list[AnyRecord]:
    return [raw.symlink_in(b"x", text, await raw.new_fid(ObjectType.SYMLINK))]


def _one(make: Callable[[Raw], AnyRecord]) -> Records:
    async def records(raw: Raw) -> list[AnyRecord]:
        await trio.lowlevel.checkpoint()
        return [make(raw)]

    return records


_CONFLICT = b"@12345678.12345678.12345678@x"
ROWS: dict[str, Records] = {
    "chmod-link": _one(lambda raw: raw.chmod(raw.l, 0o600)),
    "chown": _one(lambda raw: raw.chown(Fid(raw.volume, 1, 1))),
    "link-elsewhere": _one(lambda raw: raw.link(b"x", raw.f, raw.d)),
    "link-symlink": _one(lambda raw: raw.link(b"x", raw.l, raw.top)),
    "link-directory": _one(lambda raw: raw.link(b"x", raw.d, raw.top)),
    "rename-hard-link": _one(lambda raw: raw.move(b"h1", raw.h, raw.d, b"h1")),
    "rename-into-itself": _one(lambda raw: raw.move(b"d", raw.d, raw.sub, b"x")),
    "not-empty": _one(lambda raw: raw.rmdir(b"d", raw.d, raw.top)),
    "rename-at-sys": _one(lambda raw: raw.move(b"f", raw.f, raw.top, b"f@sys")),
    "rename-conflict-name": _one(lambda raw: raw.move(b"e", raw.e, raw.top, _CONFLICT)),
    "at-sys": lambda raw: _new_directory(raw, b"lib@sys"),
    "at-cpu": lambda raw: _new_directory(raw, b"@cpu"),
    "conflict-name": lambda raw: _new_directory(raw, _CONFLICT + b"y"),
    "long-link": lambda raw: _new_link(raw, b"x" * 1024),
    "long-new-name": _one(lambda raw: raw.move(b"l", raw.l, raw.top, b"n" * 256)),
    "long-name": lambda raw: _new_directory(raw, b"n" * 256),
}


async def answer(raw: Raw, row: str) -> str:
    """Send one row's records."""
    try:
        with trio.fail_after(20):
            code, _ = await raw.replay_code(await ROWS[row](raw))
    except (RpcError, trio.TooSlowError):
        return "dead"
    return Code(code).name if code in set(Code) else str(code)


async def main(host: str, volume: int, token: Token, rows: list[str]) -> None:
    endpoint = Endpoint(await udp_transport(), rng=random.Random())
    answers: dict[str, str] = {}
    async with trio.open_nursery() as nursery:
        await nursery.start(endpoint.run)
        raw = Raw(endpoint, volume)
        await raw.prepare(host, token)
        for row in rows:
            answers[row] = await answer(raw, row)
            if answers[row] == "dead":
                break
        nursery.cancel_scope.cancel()
    print(json.dumps(answers))


if __name__ == "__main__":
    contents = Path(sys.argv[3]).read_bytes()
    trio.run(main, sys.argv[1], int(sys.argv[2], 16), parse_token_file(contents), sys.argv[4:] or list(ROWS))
