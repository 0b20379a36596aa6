"""The control-file protocol (features.md, part 2)."""

from hypothesis import given
from hypothesis import strategies as st

from realmfs.control.pioctl import MOST_BYTES, BadOrderError, Order, format_answer, parse_order

PATHS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@given(st.integers(0, 255), PATHS, st.booleans(), st.binary(max_size=100), st.integers(0, 99999))
def test_an_order_is_read_as_it_was_written(
    command: int, path: str, follow: bool, data: bytes, most: int
) -> None:
    name = path.encode()
    raw = b"%d\n%d\n%d\n%d\n%d\n\0" % (command, len(name), follow, len(data), most) + name + data
    assert parse_order(raw) == Order(command, path.strip("/"), follow, data, min(most, MOST_BYTES))


@given(st.binary(max_size=200))
def test_nonsense_is_refused(raw: bytes) -> None:
    try:
        parse_order(raw)
    except BadOrderError:
        return
    assert raw.count(b"\n") >= 5


@given(st.binary(max_size=60), st.integers(0, 60))
def test_a_cut_or_changed_order_never_does_anything_else(noise: bytes, at: int) -> None:
    raw = b"2\n5\n1\n3\n2048\n\0/a/bcxyz"
    for changed in (raw[:at], raw[:at] + noise + raw[at:]):
        try:
            order = parse_order(changed)
        except BadOrderError:
            continue
        assert len(order.data) <= MOST_BYTES


def test_the_answer() -> None:
    assert format_answer(0, b"data") == b"0\n4\n\0data"
    assert format_answer(13) == b"13\n0\n\0"
