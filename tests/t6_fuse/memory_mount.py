"""Mount a file system in memory on argv[1] and serve it until unmounted; prints "ready" when it works.

argv[2], if given, is the deadline of stuck requests in seconds.
"""

import logging
import sys
import time
from pathlib import Path

import trio

from realmfs.fuse.session import MountSettings, Session
from realmfs.venus.face import Caller
from tests.memoryfs import MemoryFiles


class Drowsy(MemoryFiles):
    """Can doze: its trio thread then sleeps a lot, to widen races between the kernel and the loop.

    `user.test.gap` tells for how many seconds at most the loop did nothing while it dozed.
    """

    dozing = False
    gap = 0.0

    async def setxattr(self, caller: Caller, ino: int, name: bytes, value: bytes) -> None:
        if name == b"user.test.doze":
            self.dozing, self.gap = value == b"1", 0.0
        else:
            await super().setxattr(caller, ino, name, value)

    async def getxattr(self, caller: Caller, ino: int, name: bytes) -> bytes:
        if name == b"user.test.gap":
            return str(self.gap).encode()
        return await super().getxattr(caller, ino, name)

    async def doze(self) -> None:
        last = time.monotonic()
        while True:
            await trio.sleep(0.05 if not self.dozing else 0)
            now = time.monotonic()
            self.gap, last = max(self.gap, now - last), now
            if self.dozing:
                time.sleep(0.1)  # noqa: ASYNC251  # blocking is the point


async def main(directory: Path, deadline: float) -> None:
    files = Drowsy()
    session = Session(MountSettings(directory, deadline=deadline))
    files.kernel = session.notifier
    async with trio.open_nursery() as nursery:
        nursery.start_soon(files.doze)
        async with trio.open_nursery() as mounted:
            await mounted.start(session.run, files)
            print("ready", flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    trio.run(main, Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 20.0)
