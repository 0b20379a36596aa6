"""Records the interface for the documentation: pictures of the main tasks, and the page of keys.

    python scripts/record_tui.py

Everything is made from the scenes of the tests (tests/t8_cli_tui/scenes.py), so it needs no daemon and
changes only when the interface does. Pictures go to docs/tutorial/tui/, the keys to docs/reference/keys.md.
"""

import sys
import tempfile
from pathlib import Path

from textual.pilot import Pilot

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from realmfs.tui.app import RealmfsApp  # noqa: E402
from realmfs.tui.keypage import keys_page  # noqa: E402
from tests.t8_cli_tui.fakedaemon import Answers, FakeDaemon, drive_fake  # noqa: E402
from tests.t8_cli_tui.pilot import screen_text  # noqa: E402
from tests.t8_cli_tui.scenes import BUSY, EVENTS, OFFLINE, WALKING  # noqa: E402

PICTURES = REPOSITORY / "docs" / "tutorial" / "tui"
SIZE = (100, 28)
TASKS: tuple[tuple[str, str, Answers, tuple[str, ...]], ...] = (
    ("1-browse", "browse", BUSY, ("j", "l", *"jjjjj")),
    ("2-plan", "hoard", BUSY, ("p",)),
    ("3-walk", "hoard", WALKING, ()),
    ("4-off-line", "reintegration", OFFLINE, ()),
    ("5-sending", "reintegration", BUSY, ()),
    ("6-conflict", "conflicts", BUSY, ()),
    ("7-keep-ours", "conflicts", BUSY, ("space", "o")),
    ("8-servers", "servers", BUSY, ()),
    ("9-help", "hoard", BUSY, ("question_mark",)),
)


def main() -> None:
    """Record all tasks."""
    PICTURES.mkdir(exist_ok=True)
    for name, pane, answers, keys in TASKS:
        record(name, pane, answers, keys)
    (REPOSITORY / "docs" / "reference" / "keys.md").write_text(keys_page())


def record(name: str, pane: str, answers: Answers, keys: tuple[str, ...]) -> None:
    """Go to a pane, press keys, and keep what is seen as a picture and as text."""

    async def script(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        await pilot.pause(0.5)
        app.action_show(pane)
        await pilot.pause(1.0)
        for key in keys:
            await pilot.press(key)
            await pilot.pause(0.3)
        await pilot.pause(1.0)
        (PICTURES / f"{name}.svg").write_text(app.export_screenshot(title="realmfs tui"))
        (PICTURES / f"{name}.txt").write_text(screen_text(app) + "\n")

    with tempfile.TemporaryDirectory() as directory:
        drive_fake(Path(directory), answers, script, events=EVENTS, size=SIZE)


if __name__ == "__main__":
    main()
