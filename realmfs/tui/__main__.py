"""`python -m realmfs.tui SOCKET [CONFIG]`: what `realmfs tui` becomes."""

import sys
from pathlib import Path

import platformdirs

from realmfs.tui.app import RealmfsApp


def main() -> None:
    """Run the application."""
    socket, *config = map(Path, sys.argv[1:])
    state = platformdirs.user_state_path("realmfs")
    RealmfsApp(socket, config[0] if config else None, state).run()


if __name__ == "__main__":
    main()
