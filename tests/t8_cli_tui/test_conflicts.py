"""The commands about conflicts, with real ones between two daemons."""

import json
import tarfile
from pathlib import Path

from tests.t8_cli_tui.conftest import Home
from tests.t8_cli_tui.test_login import REALM, served
from tests.t8_cli_tui.test_tui_conflicts import NAMES, quarrel

__all__ = ["quarrel", "served"]


def test_conflicts_are_listed_compared_and_settled_in_bulk(quarrel: Home, tmp_path: Path) -> None:
    listed = quarrel.run("conflicts")
    assert all(f"/{REALM}/{name}" in listed for name in NAMES)
    shown = quarrel.run("conflicts", "show", f"{REALM}/one")
    assert "changed on the servers meanwhile" in shown
    assert "_localcache" in shown
    diff = quarrel.run("conflicts", "diff", f"{REALM}/one", status=1)
    assert "-one ours" in diff
    assert "+one theirs" in diff
    assert "--keep" in quarrel.run("conflicts", "resolve", status=2)
    told = quarrel.run("conflicts", "resolve", f"{REALM}/one", "--keep", "server")
    (kept,) = (line.split()[6] for line in told.splitlines() if "given up" in line)
    with tarfile.open(kept) as archive:
        assert "changes.json" in archive.getnames()
    assert quarrel.run("cat", f"{REALM}/one").startswith("one theirs")
    results = json.loads(quarrel.run("conflicts", "resolve", "--all", "--keep", "both", "--json"))
    assert [(one["kind"], len(one["names"])) for one in results] == [("no", 1), ("no", 1)]
    assert quarrel.run("cat", f"{REALM}/two.local").startswith("two ours")
    assert quarrel.run("cat", f"{REALM}/two").startswith("two theirs")
    assert "There are no conflicts" in quarrel.run("conflicts")
    export = tmp_path / "none.tar"
    assert "no file was written" in quarrel.run("changes", "export", str(export))
    assert not export.exists()
