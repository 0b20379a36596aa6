"""Ask each server by itself what it has of an object; run on the rig's bare node.

    python -m tests.interop.single FID HOST...

Prints {host: [version vector, store id, sha256 of contents or names]} as JSON, or what went wrong.
"""

import hashlib
import json
import sys

import trio

from realmfs.rpc2.endpoint import Endpoint, udp_transport
from realmfs.rpc2.errors import RpcError
from realmfs.rpc2.service import ANONYMOUS
from realmfs.rpc2.transfer import BytesSink
from realmfs.vice import calls
from realmfs.vice.directory import Directory
from realmfs.vice.errors import CodaError
from realmfs.vice.types import FILE_SUBSYSTEM, Fid
from tests.t2b_server.harness import Client


async def replica(endpoint: Endpoint, host: str, fid: Fid) -> object:
    client = Client(endpoint, fid.volume)
    try:
        with trio.fail_after(20):
            client.connection = await endpoint.bind((host, 2432), FILE_SUBSYSTEM, ANONYMOUS)
            await client.introduce()
            status = (await client.ask(calls.GetAttr(fid=fid))).status
            sink = BytesSink()
            await client.ask(calls.FetchPartial(fid=fid), sink=sink)
            await client.leave()
    except (CodaError, RpcError, trio.TooSlowError) as error:
        return f"{type(error).__name__}: {error}"
    vv, data = status.vv, sink.data
    if fid.is_directory:  # names may have other places in another replica
        data = repr(sorted(Directory.parse(data).items())).encode()
    return [list(vv.versions), list(vv.store_id), hashlib.sha256(data).hexdigest()]


async def main(fid: Fid, hosts: list[str]) -> None:
    endpoint = Endpoint(await udp_transport())
    async with trio.open_nursery() as nursery:
        await nursery.start(endpoint.run)
        print(json.dumps({host: await replica(endpoint, host, fid) for host in hosts}))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    volume, vnode, unique = (int(part, 16) for part in sys.argv[1].split("."))
    trio.run(main, Fid(volume, vnode, unique), sys.argv[2:])
