"""`realmfs serve`, but that no file is sent while a file named by REALMFS_HOLD is there; directories are.

A fetch that is held back says that it is being worked on, so the client neither gives up nor takes the server
for dead: what is under way stays so until the test wants it otherwise.
"""

import os
from pathlib import Path

import trio

from realmfs.cli.main import main
from realmfs.server.objectcalls import ObjectCalls
from realmfs.server.state import Caller
from realmfs.vice import calls

HOLD = Path(os.environ["REALMFS_HOLD"])
fetch = ObjectCalls.fetch_partial


async def held(self: ObjectCalls, caller: Caller, args: calls.FetchPartial) -> calls.FetchPartial.Reply:
    while HOLD.exists() and not args.fid.is_directory:  # noqa: ASYNC110, ASYNC240 - the test is a process of its own
        await trio.sleep(0.02)
    return await fetch(self, caller, args)


ObjectCalls.fetch_partial = held  # type: ignore[method-assign]  # before anybody has looked it up
main(prog_name="realmfs")
