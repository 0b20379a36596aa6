"""Mount a client of an embedded realm on argv[1], layered as in the daemon, all in one process.

argv[2] is a directory to work in.

Prints "ready", then obeys one word a line on its standard input and prints "done" or one line of JSON:

    off, on      disconnect and reconnect by hand
    cut, heal    let no packet of the client through until further notice
    drain        wait until nothing is pending
    tree         what another client sees in the realm, as {path: [kind, contents, mode, links]}
    theirs NAME TEXT   another client writes a file in the root of the realm
    conflicts    how many objects are in conflict
"""

import hashlib
import json
import logging
import stat
import sys
from pathlib import Path

import trio

from realmfs.control.controlfiles import with_control_files
from realmfs.control.pioctl import Order
from realmfs.fuse.session import MountSettings, Session
from realmfs.venus.face import Caller
from realmfs.vice.errors import CodaError, Code
from tests.t5_venus.world import ME, REALM, Client, World, world

DRAINED_WITHIN = 60.0


async def tree(client: Client, path: str = f"/{REALM}") -> dict[str, list[object]]:
    """Return everything below a directory."""
    found: dict[str, list[object]] = {}
    for name in await client.ls(path):
        below = f"{path}/{name}"
        attr = await client.look(below)
        mode = stat.S_IMODE(attr.mode)
        place = below.removeprefix(f"/{REALM}/")
        if stat.S_ISDIR(attr.mode):
            found[place] = ["directory", "", 0, 0]
            found |= await tree(client, below)
        elif stat.S_ISLNK(attr.mode):
            found[place] = ["link", (await client.venus.readlink(ME, attr.ino)).decode(), 0, 0]
        else:
            contents = hashlib.sha256(await client.read(below)).hexdigest()
            found[place] = ["file", contents, mode, attr.links]
    return found


async def no_order(caller: Caller, order: Order) -> bytes:
    """There is nobody to carry out what the reference's tools ask for."""
    raise CodaError(Code.EOPNOTSUPP)


async def obey(line: str, w: World, client: Client) -> object:
    word, *arguments = line.split(" ", 2)
    match word:
        case "off":
            await client.realms.disconnect()
        case "on":
            await client.realms.reconnect()
        case "cut":
            client.offline()
        case "heal":
            client.online()
        case "drain":
            await client.drained(DRAINED_WITHIN)
        case "tree":
            return await tree(await w.client())
        case "theirs":
            name, text = arguments
            other = await w.client()
            await other.write(f"/{REALM}/{name}", text.encode())
            await other.drained(DRAINED_WITHIN)
        case "conflicts":
            return len(client.venus.core.conflicts.all())
        case _:
            raise ValueError(word)
    return "done"


async def commands(w: World, client: Client) -> None:
    lines = trio.wrap_file(sys.stdin)
    async for line in lines:
        print(json.dumps(await obey(line.strip(), w, client)), flush=True)


async def main(directory: Path, room: Path) -> None:
    async with world(room) as w:
        client = await w.client(own_servers=False)
        session = Session(MountSettings(directory))
        client.venus.attach_kernel(session.notifier)
        async with trio.open_nursery() as nursery:
            await nursery.start(session.run, with_control_files(client.venus, no_order))
            nursery.start_soon(commands, w, client)
            print("ready", flush=True)
        w.nursery.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    trio.run(main, Path(sys.argv[1]), Path(sys.argv[2]))
