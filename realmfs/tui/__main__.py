"""`python -m realmfs.tui SOCKET [CONFIG]`: what `realmfs tui` becomes."""

import sys
from pathlib import Path

import platformdirs

from realmfs.tui.app import RealmfsApp
from realmfs.tui.tidying import Tidying


def main() -> None:
    """Run the application."""
    socket, *config = map(Path, sys.argv[1:])
    state = platformdirs.user_state_path("realmfs")
    tidying = Tidying()
    tidying.begin()
    RealmfsApp(socket, config[0] if config else None, state, tidying).run()


if __name__ == "__main__":
    main()
