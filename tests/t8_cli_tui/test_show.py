"""What is printed."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from realmfs.control.words import age, printable, size


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
