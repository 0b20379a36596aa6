"""realms.md §2.2: the realms file in all its forms."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.realms.realmsfile import MAX_LINE, FileServer, find, parse_server, read

TEXT = """\
# comment.org 10.0.0.9
one.org 10.0.0.1
many.org\ts1.many.org, 10.0.0.2:12432\ts3.many.org
 indented.org 10.0.0.3
bare.org
spaces.org\x20\x20
one.org 10.0.0.7
Upper.ORG. 10.0.0.4
home s.home
"""


LAST = FileServer("s3.many.org", None)


@pytest.mark.parametrize(
    ("realm", "listed"),
    [
        ("one.org", [FileServer("10.0.0.1", None)]),
        (
            "many.org",
            [FileServer("s1.many.org", None), FileServer("10.0.0.2", 12432), FileServer("s3.many.org", None)],
        ),
        ("bare.org", []),
        ("spaces.org", []),
        ("upper.org", [FileServer("10.0.0.4", None)]),
        ("home", [FileServer("s.home", None)]),
        ("comment.org", None),
        ("# comment.org", None),
        ("indented.org", None),
        ("on", None),
        ("absent.org", None),
    ],
)
def test_forms(realm: str, listed: list[FileServer] | None) -> None:
    assert find(TEXT, realm) == (None if listed is None else tuple(listed))


def test_overlong_lines_do_not_count() -> None:
    assert find("a.org " + "10.0.0.1 " * 40, "a.org") is None
    assert find("a.org " + "x" * (MAX_LINE - 6), "a.org") is not None


@pytest.mark.logs("bad port")
def test_a_bad_server_is_skipped() -> None:
    assert find("a.org 10.0.0.1:x 10.0.0.2", "a.org") == (FileServer("10.0.0.2", None),)


@pytest.mark.parametrize("text", [":1", "", "h:", "h:0", "h:65536", "h:-1", "h:1:2", "h:²"])
def test_bad_servers(text: str) -> None:
    with pytest.raises(ValueError, match=r"no host|bad port"):
        parse_server(text)


@given(st.text(max_size=300), st.text(max_size=20))
def test_any_text_is_survived(text: str, realm: str) -> None:
    find("".join(c for c in text if c != ":"), realm)


def test_reading(tmp_path: Path) -> None:
    assert read(None) == ""
    assert read(tmp_path / "absent") == ""
    (tmp_path / "realms").write_bytes(b"a.org 10.0.0.1 \xff\n")
    assert "10.0.0.1" in read(tmp_path / "realms")


@pytest.mark.logs("realms file")
def test_an_unreadable_file_is_told(tmp_path: Path) -> None:
    assert read(tmp_path) == ""
