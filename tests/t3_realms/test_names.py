"""realms.md §1: which names may be realms, and which DNS is never asked about."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.realms.names import MAX_NAME, fold, is_host_name, is_name


@given(st.text(max_size=80))
def test_folding_is_final(name: str) -> None:
    if not name.lower().endswith(".."):
        assert fold(fold(name)) == fold(name)


@given(st.text(max_size=80))
def test_a_host_name_is_always_a_name(name: str) -> None:
    if is_host_name(name):
        assert is_name(name)
        assert name.isascii()
        assert "." in name


LABEL = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?\Z")


@given(st.lists(LABEL, min_size=1, max_size=2), st.sampled_from(["org", "test", "example", "xn--p1ai"]))
def test_ordinary_names_are_asked_for(labels: list[str], top: str) -> None:
    name = ".".join([*labels, top])
    assert is_host_name(name) == (len(name) <= MAX_NAME)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".",
            ".git",
            ".Trash",
            ".Trash-1000",
            "localhost",
            "a",
            "home",
            "Recycle Bin",
            "#vol.",
            "@r.org.",
        ),
        *("autorun.inf", "desktop.ini", "thumbs.db", "folder.jpg", "mimetype.cache"),
        *("a..b", "-a.org", "a-.org", "a_b.org", "a.org/x", "a\nb.org", "a\0.org", "é.org", "10.0.0.1"),
        "x" * 63 + ".org",
        "x" * 64 + ".o",
    ],
)
def test_never_asked(name: str) -> None:
    assert not is_host_name(fold(name))


@pytest.mark.parametrize("name", ["Thumbs.db", "Autorun.INF", "Desktop.ini"])
def test_probes_of_desktops_in_any_case(name: str) -> None:
    assert not is_host_name(fold(name))


def test_one_spelling() -> None:
    assert fold("A.Org.") == fold("a.org") == "a.org"


@pytest.mark.parametrize(
    ("name", "allowed"), [("home", True), ("a b", False), ("localhost", False), ("#x", False)]
)
def test_nicknames_for_the_realms_file(name: str, allowed: bool) -> None:
    assert is_name(name) is allowed
