"""The peer sshfs over loopback: with an sshd, keys and settings that live as long as the benchmark."""

import getpass
import os
import shutil
import socket
from pathlib import Path
from typing import Any

from bench.ournode import MOUNT_PATIENCE
from bench.process import Program, run
from bench.subject import Subject, unmount, version_of, wait_for_mount

PRIVILEGE_SEPARATION = Path("/run/sshd")
"""sshd refuses to start as root without this directory; nothing else is done to the machine."""


class Sshfs(Subject):
    """sshfs with its default options: kernel caches on, AES or ChaCha sealed transport."""

    name = "sshfs"

    def __init__(self, data: Path, room: Path) -> None:
        self._source = data
        self._room = room
        self._files = room / "sshfs"
        self._target = room / "sshfs-scratch"
        self._point = room / "sshfs-mount"
        self._port = 0
        self._server: Program | None = None
        self._client: Program | None = None
        self._made_directory = False

    def missing(self) -> str | None:
        absent = [name for name in ("sshfs", "sshd", "ssh-keygen", "fusermount3") if not _find(name)]
        if absent:
            return f"not installed: {', '.join(absent)}"
        return None if os.access("/dev/fuse", os.R_OK | os.W_OK) else "/dev/fuse cannot be opened"

    def start(self) -> None:
        for directory in (self._files, self._target, self._point):
            directory.mkdir()
        if os.geteuid() == 0 and not PRIVILEGE_SEPARATION.exists():
            PRIVILEGE_SEPARATION.mkdir(mode=0o755)
            self._made_directory = True
        for key in ("host", "user"):
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", os.fspath(self._files / key)], 10)
        public = self._files / "user.pub"
        public.rename(self._files / "authorized")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        host_key = (self._files / "host.pub").read_text().split()
        (self._files / "known").write_text(f"[127.0.0.1]:{self._port} {host_key[0]} {host_key[1]}\n")
        (self._files / "sshd_config").write_text(self._configuration())
        argv = [_find("sshd"), "-D", "-e", "-f", os.fspath(self._files / "sshd_config")]
        self._server = Program(argv, self._files / "sshd.log")
        self._server.wait_until(self._answers, MOUNT_PATIENCE, "the first connection")

    def _configuration(self) -> str:
        lines = {
            "ListenAddress": "127.0.0.1",
            "Port": str(self._port),
            "HostKey": os.fspath(self._files / "host"),
            "AuthorizedKeysFile": os.fspath(self._files / "authorized"),
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "Subsystem": "sftp internal-sftp",
        }
        return "".join(f"{key} {value}\n" for key, value in lines.items())

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def mount(self, *, fresh: bool) -> None:
        del fresh
        self._unmount()
        options = [
            f"IdentityFile={self._files / 'user'}",
            "IdentitiesOnly=yes",
            f"UserKnownHostsFile={self._files / 'known'}",
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
        ]
        argv = ["sshfs", "-f", "-F", "/dev/null", "-p", str(self._port)]
        for option in options:
            argv += ["-o", option]
        argv += [f"{getpass.getuser()}@127.0.0.1:{self._room}", os.fspath(self._point)]
        self._client = Program(argv, self._room / "sshfs.log")
        wait_for_mount(self._client, self._point)

    @property
    def data(self) -> str:
        return os.fspath(self._point / self._source.relative_to(self._room))

    @property
    def scratch(self) -> str:
        return os.fspath(self._point / self._target.name)

    def describe(self) -> dict[str, Any]:
        return {
            "sshfs": version_of("sshfs", "--version"),
            "ssh": version_of("ssh", "-V"),
            "transport": "SSH over TCP",
        }

    def _unmount(self) -> None:
        unmount(self._point)
        if self._client is not None:
            self._client.stop()
            self._client = None

    def stop(self) -> None:
        self._unmount()
        if self._server is not None:
            self._server.stop()
        if self._made_directory:
            PRIVILEGE_SEPARATION.rmdir()


def _find(program: str) -> str:
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin") or ""
