"""What is printed."""

import contextlib
import os
import pty
import re
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.cli.show import print_table
from realmfs.control.words import age, printable, size
from tests.t8_cli_tui.conftest import REPOSITORY


@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")))
def test_printed_names_cannot_steer_a_terminal(name: str) -> None:
    shown = printable(name)
    shown.encode("utf-8")
    assert not any(unicodedata.category(char).startswith("C") for char in shown)


def test_names_stay_legible() -> None:
    assert printable("naïve name.txt") == "naïve name.txt"
    assert printable("a\nb\x1b[0m") == "a\\nb\\x1b[0m"
    assert printable(b"caf\xe9".decode("utf-8", "surrogateescape")) == "caf\\xe9"


def test_sizes_and_ages() -> None:
    assert [size(number) for number in (0, 1023, 1024, 1536 << 10, 5 << 40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 MiB",
        "5120.0 GiB",
    ]
    assert [age(seconds) for seconds in (None, 3, 90, 7200, 200_000)] == ["-", "3 s", "2 min", "2 h", "2 d"]


def test_a_table_is_plain_in_a_pipe_and_folded_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [("a" * 30, "up"), ("[b]", "down")]
    print_table(("NAME", "STATE"), rows, "none")
    assert capsys.readouterr().out == f"{'NAME':30}  STATE\n{'a' * 30}  up\n{'[b]':30}  down\n"
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(("NAME", "STATE"), rows, "none")
    shown = capsys.readouterr().out
    assert not re.search(r"\x1b\[[34]\d", shown), "no colour if none is wanted"
    lines = re.sub(r"\x1b\[\d*m", "", shown).splitlines()
    assert max(map(len, lines)) <= 20
    assert "".join(line.split()[0] for line in lines[1:-1]) == "a" * 30, "nothing is cut off"
    assert lines[-1].split() == ["[b]", "down"], "names are no markup"
    print_table(("NAME",), [], "none")
    assert capsys.readouterr().err == "none\n"


SLOW = """
from realmfs.cli import progress
progress.AFTER = {after}
with progress.Bar("copying [x]") as bar:
    for done in range(5):
        bar.tell(done * 512, 4096, is_bytes=True)
        progress.threading.Event().wait(0.15)
print("end")
"""


@pytest.mark.parametrize(("after", "drawn"), [(0.0, True), (30.0, False)])
def test_what_takes_long_has_a_bar_on_a_terminal(after: float, drawn: bool) -> None:
    terminal, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "TERM": "xterm", "COLUMNS": "80"}
    argv = [sys.executable, "-c", SLOW.format(after=after)]
    with subprocess.Popen(argv, stderr=theirs, stdout=subprocess.PIPE, env=environment) as process:
        os.close(theirs)
        output, _ = process.communicate(timeout=50)
    assert output == b"end\n"
    shown = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while data := os.read(terminal, 65536):
            shown += data
    os.close(terminal)
    assert (b"copying [x]" in shown and b"of 4.0 KiB" in shown) == drawn
    assert drawn or shown == b""


def test_commands_start_without_rich() -> None:
    code = "import sys, realmfs.cli.main, realmfs.cli.servers, realmfs.cli.get; print('rich' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "False\n"
