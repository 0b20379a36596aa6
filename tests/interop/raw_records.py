"""Send a server records that realmfs would refuse to log; run on the rig's bare node.

    python -m tests.interop.raw_records HOST VOLUME TOKENFILE ADMINISTRATORS-TOKENFILE ROW...

Works in a new directory of the volume, with the first token but for making a mount link; prints
{row: what the server answered} as JSON: the name of a code, `SUCCESS`, or `dead` if it answers no more.
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
from realmfs.vice import calls, log
from realmfs.vice.acl import AccessList
from realmfs.vice.errors import Code
from realmfs.vice.log import AnyRecord
from realmfs.vice.mountlink import MOUNT_MODE
from realmfs.vice.tokens import Token, parse_token_file
from realmfs.vice.types import FILE_SUBSYSTEM, Fid, ObjectType, Rights
from tests.t2b_server.harness import NOW, Client

FULL = 894
"""Names of 255 bytes fill a directory (directories.md §2.5)."""

Records = Callable[["Raw"], Awaitable[list[AnyRecord]]]


class Raw(Client):
    """The raw client at a real server, in a directory of its own with files, links and directories."""

    async def prepare(self, host: str, token: Token, administrator: Token) -> None:
        """Log in and make the objects."""
        await self.log_in(host, token)
        self.top = await self.make_directory(b"raw%s" % secrets.token_hex(4).encode())
        self.d = await self.make_directory(b"d", self.top)
        self.sub = await self.make_directory(b"sub", self.d)
        self.e = await self.make_directory(b"e", self.top)
        self.f = await self.make_file(b"f", b"x", self.top)
        self.h = await self.make_file(b"h1", b"x", self.top)
        await self.replay([self.link(b"h2", self.h, self.top)])
        self.l = await self.new_fid(ObjectType.SYMLINK)
        await self.replay([self.symlink_in(b"l", b"x", self.l)])
        self.shut = await self.make_directory(b"closed", self.top)
        self.mine = await self.make_file(b"mine", b"x", self.shut)
        await self.take_rights(self.shut)
        own = self.connection
        await self.log_in(host, administrator)
        self.m = await self.new_fid(ObjectType.SYMLINK)
        await self.replay([self.symlink_in(b"m", b"#nowhere.", self.m, MOUNT_MODE)])
        self.connection = own

    async def log_in(self, host: str, token: Token) -> None:
        credentials = Credentials(Level.AUTHONLY, token.secret, token.clear.handshake_key, 1)
        self.connection = await self.endpoint.bind((host, 2432), FILE_SUBSYSTEM, credentials)
        await self.introduce()

    async def take_rights(self, directory: Fid) -> None:
        """Leave alice no rights but to look and read."""
        acl = AccessList((("alice", int(Rights.READ | Rights.LOOKUP)),)).format()
        status = await self.status(directory)
        await self.ask(calls.SetAcl(fid=directory, acl=acl, status=status, store_id=self.store_id()))

    async def full(self) -> tuple[Fid, Fid]:
        """Return a directory of 256 KiB, and a file in it that has all its names."""
        directory = await self.make_directory(b"full", self.top)
        names = [b"%03d" % number + b"x" * 252 for number in range(FULL)]
        file = await self.make_file(names[0], b"x", directory)
        for start in range(1, FULL, 50):
            await self.replay([self.link(name, file, directory) for name in names[start : start + 50]])
        return directory, file

    def symlink_in(self, name: bytes, text: bytes, fid: Fid, mode: int = 0o777) -> log.SymLink:
        return log.SymLink(
            mtime=NOW, store_id=self.store_id(), parent=self.top, name=name, content=text, fid=fid, owner=0,
            mode=mode,
        )  # fmt: skip

    def utimes(self, fid: Fid) -> log.Utimes:
        return log.Utimes(mtime=NOW, store_id=self.store_id(), fid=fid, date=NOW)

    def move(self, name: bytes, fid: Fid, to: Fid, new_name: bytes) -> log.Rename:
        return self.rename((self.top, name), (to, new_name), fid)

    def chown(self, fid: Fid) -> log.Chown:
        return log.Chown(mtime=NOW, store_id=self.store_id(), fid=fid, owner=4711)


async def _new_directory(raw: Raw, name: bytes) -> list[AnyRecord]:
    return [raw.mkdir(name, await raw.new_fid(ObjectType.DIRECTORY), raw.top)]


async def _new_link(raw: Raw, text: bytes) -> list[AnyRecord]:
    return [raw.symlink_in(b"x", text, await raw.new_fid(ObjectType.SYMLINK))]


async def _linked_where_it_is_full(raw: Raw) -> list[AnyRecord]:
    directory, file = await raw.full()
    return [raw.link(b"y" * 255, file, directory)]


async def _moved_where_it_is_full(raw: Raw) -> list[AnyRecord]:
    directory, _ = await raw.full()
    return [raw.move(b"f", raw.f, directory, b"y" * 255)]


async def _made_where_it_is_full(raw: Raw) -> list[AnyRecord]:
    directory, _ = await raw.full()
    return [raw.mkdir(b"y" * 255, await raw.new_fid(ObjectType.DIRECTORY), directory)]


def _all(*makes: Callable[[Raw], AnyRecord]) -> Records:
    async def records(raw: Raw) -> list[AnyRecord]:
        await trio.lowlevel.checkpoint()
        return [make(raw) for make in makes]

    return records


def _too_long(raw: Raw, fid: Fid) -> log.Store:
    raw.data[fid] = b"x"
    return raw.store(fid, -(1 << 31))  # the bits of 2 GiB


_ELSEWHERE = Fid.root(0x7F000000)
_CONFLICT = b"@12345678.12345678.12345678@x"
ROWS: dict[str, Records] = {
    "chmod-link": _all(lambda raw: raw.chmod(raw.l, 0o600)),
    "chown": _all(lambda raw: raw.chown(Fid(raw.volume, 1, 1))),
    "link-elsewhere": _all(lambda raw: raw.link(b"x", raw.f, raw.d)),
    "link-symlink": _all(lambda raw: raw.link(b"x", raw.l, raw.top)),
    "link-directory": _all(lambda raw: raw.link(b"x", raw.d, raw.top)),
    "rename-hard-link": _all(lambda raw: raw.move(b"h1", raw.h, raw.d, b"h1")),
    "rename-into-itself": _all(lambda raw: raw.move(b"d", raw.d, raw.sub, b"x")),
    "not-empty": _all(lambda raw: raw.rmdir(b"d", raw.d, raw.top)),
    "rename-at-sys": _all(lambda raw: raw.move(b"f", raw.f, raw.top, b"f@sys")),
    "rename-conflict-name": _all(lambda raw: raw.move(b"e", raw.e, raw.top, _CONFLICT)),
    "link-mount": _all(lambda raw: raw.link(b"x", raw.m, raw.top)),
    "link-volume": _all(lambda raw: raw.link(b"x", raw.f, _ELSEWHERE)),
    "rename-volume": _all(lambda raw: raw.move(b"f", raw.f, _ELSEWHERE, b"f")),
    "remove-mount": _all(lambda raw: raw.remove(b"m", raw.m, raw.top)),
    "replace-mount": _all(
        lambda raw: raw.remove(b"m", raw.m, raw.top), lambda raw: raw.move(b"f", raw.f, raw.top, b"m")
    ),
    "replace-not-empty": _all(
        lambda raw: raw.rmdir(b"d", raw.d, raw.top), lambda raw: raw.move(b"e", raw.e, raw.top, b"d")
    ),
    "no-insert-right": _all(lambda raw: raw.link(b"x", raw.mine, raw.shut)),
    "no-delete-right": _all(lambda raw: raw.remove(b"mine", raw.mine, raw.shut)),
    "no-write-right": _all(lambda raw: raw.store(raw.mine, 1)),
    "no-right-to-chmod": _all(lambda raw: raw.chmod(raw.mine, 0o600)),
    "no-right-to-set-times": _all(lambda raw: raw.utimes(raw.mine)),
    "set-user-id": _all(lambda raw: raw.chmod(raw.h, 0o4755)),
    "rename-mount": _all(lambda raw: raw.move(b"m", raw.m, raw.top, b"n")),
    "at-sys": lambda raw: _new_directory(raw, b"lib@sys"),
    "at-cpu": lambda raw: _new_directory(raw, b"@cpu"),
    "conflict-name": lambda raw: _new_directory(raw, _CONFLICT + b"y"),
    "long-link": lambda raw: _new_link(raw, b"x" * 1024),
    "write-2gib": _all(lambda raw: _too_long(raw, raw.f)),
    "truncate-2gib": _all(lambda raw: _too_long(raw, raw.h)),
    "directory-full": _made_where_it_is_full,
    "directory-full-link": _linked_where_it_is_full,
    "directory-full-rename": _moved_where_it_is_full,
    "long-new-name": _all(lambda raw: raw.move(b"l", raw.l, raw.top, b"n" * 256)),
    "long-name": lambda raw: _new_directory(raw, b"n" * 256),
}


async def answer(raw: Raw, row: str) -> str:
    """Send one row's records."""
    records = await ROWS[row](raw)
    try:
        with trio.fail_after(20):
            code, _ = await raw.replay_code(records)
    except (RpcError, trio.TooSlowError):
        return "dead"
    return Code(code).name if code in set(Code) else str(code)


async def main(host: str, volume: int, tokens: list[Token], rows: list[str]) -> None:
    endpoint = Endpoint(await udp_transport(), rng=random.Random())
    answers: dict[str, str] = {}
    async with trio.open_nursery() as nursery:
        await nursery.start(endpoint.run)
        raw = Raw(endpoint, volume)
        await raw.prepare(host, *tokens)
        for row in rows:
            answers[row] = await answer(raw, row)
            if answers[row] == "dead":
                break
        nursery.cancel_scope.cancel()
    print(json.dumps(answers))


if __name__ == "__main__":
    both = [parse_token_file(Path(name).read_bytes()) for name in sys.argv[3:5]]
    trio.run(main, sys.argv[1], int(sys.argv[2], 16), both, sys.argv[5:] or list(ROWS))
