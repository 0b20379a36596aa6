"""The same promise through the kernel: a real mount whose server falls silent in the middle of everything."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from realmfs.cli.stage import Program
from tests.promises.test_kills import HOST, PORT, REALM, Node, server

pytestmark = pytest.mark.kernel
LIMIT = 12.0
"""Seconds: the patience, and what a busy machine adds."""

__all__ = ["server"]


@pytest.mark.timeout(300)
def test_no_call_hangs_when_the_server_falls_silent(tmp_path: Path, server: Program) -> None:
    realms = tmp_path / "realms"
    realms.write_text(f"{REALM} {HOST}:{PORT}\n")
    writer, reader = Node(tmp_path / "writer", realms), Node(tmp_path / "reader", realms)
    try:
        writer.start()
        top = writer.top / REALM
        for name in ("cached", "stranger", "gone", "old"):
            (top / name).write_bytes(name.encode() * 1000)
        limit = time.monotonic() + 30
        while writer.pending():
            assert time.monotonic() < limit
            time.sleep(0.05)
        writer.stop()
        reader.start()
        top = reader.top / REALM
        assert (top / "cached").read_bytes() == b"cached" * 1000
        assert sorted(os.listdir(top)) == ["cached", "gone", "old", "stranger"]
        server.process.send_signal(signal.SIGSTOP)
        uses: list[Callable[[], object]] = [
            lambda: os.stat(top / "stranger"),
            (top / "stranger").read_bytes,
            lambda: os.listdir(top),
            lambda: os.stat(top / "nothing"),
            lambda: (top / "new").write_bytes(b"new"),
            (top / "made").mkdir,
            (top / "gone").unlink,
            lambda: (top / "old").rename(top / "made" / "old"),
            lambda: os.getxattr(top / "cached", "user.coda.acl"),
        ]
        done = [_in_time(use) for use in uses]
        assert (top / "cached").read_bytes() == b"cached" * 1000, "what is cached is served"
        server.process.send_signal(signal.SIGCONT)
        limit = time.monotonic() + 60
        while reader.pending():
            assert time.monotonic() < limit, "the log does not drain"
            time.sleep(0.1)
        reader.stop()
        reader.start("another")
        names = set(os.listdir(top))
        assert ("new" in names, "made" in names, "gone" in names) == (done[4], done[5], not done[6])
        assert ("old" not in names) == done[7], "what got an errno was not done"
    finally:
        server.process.send_signal(signal.SIGCONT)
        writer.stop()
        reader.stop()


def _in_time(use: Callable[[], object]) -> bool:
    """Make a use; tell whether it succeeded."""
    began = time.monotonic()
    try:
        use()
        return True
    except OSError:
        return False
    finally:
        spent = time.monotonic() - began
        print(f"{spent:.1f} s")
        assert spent < LIMIT
