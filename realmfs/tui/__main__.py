"""`python -m realmfs.tui SOCKET [CONFIG]`: what `realmfs tui` becomes."""

import sys
from pathlib import Path

from realmfs.tui.app import RealmfsApp


def main() -> None:
    """Run the application."""
    socket, *config = map(Path, sys.argv[1:])
    RealmfsApp(socket, *config).run()


if __name__ == "__main__":
    main()
