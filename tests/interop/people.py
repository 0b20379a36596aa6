"""Users of our node in the rig: each a local user of his own, all on one mount."""

import json
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from bench.ournode import REPOSITORY
from bench.rig import OUR_NODE, Rig
from tests.interop.nodes import PASSWORDS, REALM, Place

SENT_WITHIN = 20.0


@dataclass(frozen=True)
class Person:
    """A user of our node: his own local user, and the mount that all users share."""

    rig: Rig
    room: Path
    name: str

    def realmfs(self, *argv: str, stdin: str = "") -> str:
        """Run a command under the local user. Ours may not be able to run this interpreter."""
        environment = {
            "PYTHONPATH": os.pathsep.join([sysconfig.get_path("purelib"), os.fspath(REPOSITORY)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "REALMFS_SOCKET": os.fspath(self.room / "socket"),
            "XDG_CONFIG_HOME": os.fspath(self.room / "none"),
        }
        settings = [f"{key}={value}" for key, value in environment.items()]
        argv = ("env", *settings, "python3", "-m", "realmfs", *argv)
        return self.rig.exec(OUR_NODE, *argv, user=self.name, stdin=stdin)

    def login(self, password: str | None = None) -> str:
        password = password or PASSWORDS[self.name]
        return self.realmfs("login", f"{self.name}@{REALM}", stdin=password + "\n")

    def tokens(self) -> list[tuple[str, str]]:
        return [(one["user"], one["state"]) for one in json.loads(self.realmfs("tokens", "--json"))]

    @property
    def place(self) -> Place:
        return Place(self.rig, OUR_NODE, f"{self.room}/coda/{REALM}", self.name)
