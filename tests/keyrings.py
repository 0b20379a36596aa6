"""A keyring in a file, for tests; registered as any backend is: environment, or `keyring.set_keyring`."""

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import KeyringError, PasswordDeleteError


class FileKeyring(KeyringBackend):
    """Entries in the file that REALMFS_TEST_KEYRING names; locked if there is a directory instead."""

    priority = 5.0

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the package has no annotation there
        self.path = Path(os.environ["REALMFS_TEST_KEYRING"])

    def entries(self) -> dict[str, str]:
        if self.path.is_dir():
            raise KeyringError("the keyring is locked")
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.entries().get(f"{service} {username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self.path.write_text(json.dumps(self.entries() | {f"{service} {username}": password}))

    def delete_password(self, service: str, username: str) -> None:
        entries = self.entries()
        if entries.pop(f"{service} {username}", None) is None:
            raise PasswordDeleteError("not found")
        self.path.write_text(json.dumps(entries))


class PlainKeyring(FileKeyring):
    """One that its makers do not recommend."""

    priority = 0.5
