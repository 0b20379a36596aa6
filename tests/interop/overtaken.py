"""A second phase that another client's update has overtaken; run on the rig's bare node.

    python -m tests.interop.overtaken DIRECTORY-FID TOKENFILE cut|keep HOST...

Two clients change one directory at all the servers. The second knew nothing of the first one's change; only
then the first one's second phase arrives, as it comes (`cut`) or in the form that leaves the servers' logs
alone (`keep`, vice/cop2.py). Prints what each server has and what ViceResolve says, as JSON.
"""

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from realmfs.rpc2.endpoint import Endpoint, udp_transport
from realmfs.rpc2.service import Credentials, Level
from realmfs.rpc2.transfer import BytesSource
from realmfs.vice import calls
from realmfs.vice.cop2 import Cop2Entry, pack_entries
from realmfs.vice.errors import Code
from realmfs.vice.log import AnyRecord, pack_log, thread
from realmfs.vice.tokens import Token, parse_token_file
from realmfs.vice.types import FILE_SUBSYSTEM, Fid, StoreId, VersionVector
from tests.t2b_server.harness import Client


class Everywhere(Client):
    """The raw client with a connection to each server of a group."""

    async def log_in(self, hosts: Sequence[str], token: Token) -> None:
        credentials = Credentials(Level.AUTHONLY, token.secret, token.clear.handshake_key, 1)
        self.connections = []
        for host in hosts:
            self.connection = await self.endpoint.bind((host, 2432), FILE_SUBSYSTEM, credentials)
            await self.introduce()
            self.connections.append(self.connection)

    async def update(self, name: bytes, directory: Fid, known: VersionVector) -> StoreId:
        """Make a name at every server, knowing a version of the directory; returns the store id."""
        record: AnyRecord = self.create(name, await self.new_fid(), directory)
        packed = pack_log(thread([record], {directory: known, record.fid: VersionVector()}))
        for connection in self.connections:
            call = calls.Reintegrate(volume=self.volume, log_size=len(packed))
            code, reply = await self.ask_code(call, source=BytesSource(packed), connection=connection)
            print(name, Code(code).name, "stale:", reply.stale_dirs, file=sys.stderr)
        return record.store_id

    async def versions(self, directory: Fid) -> list[VersionVector]:
        found = []
        for connection in self.connections:
            code, reply = await self.ask_code(
                calls.GetAttr(fid=directory, inconsistent_ok=True), connection=connection
            )
            assert code == 0
            found.append(reply.status.vv)
        return found


async def second_phases(client: Everywhere, store_id: StoreId, keep: bool) -> None:
    slots = tuple(range(len(client.connections)))
    for slot, connection in enumerate(client.connections):
        entries = pack_entries([Cop2Entry(store_id, slots)], keep=slot if keep else None)
        await client.ask(calls.Cop2(entries=entries), connection=connection)


async def main(directory: Fid, token: Token, keep: bool, hosts: Sequence[str]) -> None:
    async with trio.open_nursery() as nursery:
        clients = []
        for _ in range(2):
            endpoint = Endpoint(await udp_transport(), rng=random.Random())
            await nursery.start(endpoint.run)
            client = Everywhere(endpoint, directory.volume)
            client.host = random.getrandbits(32)
            await client.log_in(hosts, token)
            clients.append(client)
        one, other = clients
        before = (await one.versions(directory))[0]
        store_id = await one.update(b"one", directory, before)
        await other.update(b"other", directory, before)
        await second_phases(one, store_id, keep)
        seen = [list(vv.versions) for vv in await one.versions(directory)]
        code, _ = await one.ask_code(calls.Resolve(fid=directory), connection=one.connections[0])
        after = await one.versions(directory)
        print(json.dumps({
            "before": seen, "resolve": Code(code).name, "marked": [vv.inconsistent for vv in after],
            "after": [list(vv.versions) for vv in after],
        }))  # fmt: skip
        for client in clients:
            for connection in client.connections:
                client.connection = connection
                await client.leave()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    volume, vnode, unique = (int(part, 16) for part in sys.argv[1].split("."))
    held = parse_token_file(Path(sys.argv[2]).read_bytes())
    trio.run(main, Fid(volume, vnode, unique), held, sys.argv[3] == "keep", sys.argv[4:])
