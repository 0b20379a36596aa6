"""Compare what the servers have of a tree, each asked by itself; run on the rig's bare node.

    python -m tests.interop.replicas FID HOST...

Prints {"objects": how many, "differ": {fid: [version vector, store id, flags] of each server}} as JSON. Needs
everything to be readable by anybody.
"""

import json
import sys
from collections import deque

import trio

from realmfs.rpc2.endpoint import Endpoint, udp_transport
from realmfs.rpc2.service import ANONYMOUS
from realmfs.rpc2.transfer import BytesSink
from realmfs.vice import calls
from realmfs.vice.directory import Directory
from realmfs.vice.types import FILE_SUBSYSTEM, Fid
from tests.t2b_server.harness import Client


async def connect(endpoint: Endpoint, host: str, volume: int) -> Client:
    client = Client(endpoint, volume)
    client.connection = await endpoint.bind((host, 2432), FILE_SUBSYSTEM, ANONYMOUS)
    await client.introduce()
    return client


async def states(clients: list[Client], fid: Fid) -> list[object]:
    found: dict[int, object] = {}

    async def ask(number: int, client: Client) -> None:
        vv = (await client.ask(calls.GetAttr(fid=fid))).status.vv
        found[number] = [list(vv.versions), list(vv.store_id), int(vv.flags)]

    async with trio.open_nursery() as nursery:
        for number, client in enumerate(clients):
            nursery.start_soon(ask, number, client)
    return [found[number] for number in range(len(clients))]


async def compare(clients: list[Client], top: Fid) -> dict[str, object]:
    """Walk down the first server's tree."""
    waiting, count, differ = deque([top]), 0, {}
    while waiting:
        fid = waiting.popleft()
        count += 1
        found = await states(clients, fid)
        if any(one != found[0] for one in found):
            differ[str(fid)] = found
        if fid.is_directory:
            sink = BytesSink()
            await clients[0].ask(calls.FetchPartial(fid=fid), sink=sink)
            for name, vnode, unique in Directory.parse(sink.data).items():
                if name not in (b".", b".."):
                    waiting.append(Fid(fid.volume, vnode, unique))
    return {"objects": count, "differ": differ}


async def main(fid: Fid, hosts: list[str]) -> None:
    endpoint = Endpoint(await udp_transport())
    async with trio.open_nursery() as nursery:
        await nursery.start(endpoint.run)
        with trio.fail_after(100):
            clients = [await connect(endpoint, host, fid.volume) for host in hosts]
            print(json.dumps(await compare(clients, fid)))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    volume, vnode, unique = (int(part, 16) for part in sys.argv[1].split("."))
    trio.run(main, Fid(volume, vnode, unique), sys.argv[2:])
