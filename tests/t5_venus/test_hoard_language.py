"""The language of hoard(1)."""

from hypothesis import given
from hypothesis import strategies as st

from realmfs.cache.hoard import Expand
from realmfs.venus.hoardlanguage import Command, Kind, Wish, ordered, parse, parse_wish, write

REFERENCE_FILE = """
clear
add /coda/rig.test/usr/alice 600:d+
a /coda/rig.test/bin 100:c

d /coda/rig.test/old
add /coda/rig.test/etc/motd
add /coda/rig.test/x :d+:5
add /coda/rig.test/#odd
list
l /tmp/out 1000
verify
v /tmp/out 101 1000
w
on
off
"""


def test_files_of_the_reference_load_unchanged() -> None:
    commands, mistakes = parse(REFERENCE_FILE, "f")
    assert mistakes == []
    assert [(one.kind, one.path, str(one.wish)) for one in commands[:7]] == [
        (Kind.CLEAR, "", "10"),
        (Kind.ADD, "/coda/rig.test/usr/alice", "600:d+"),
        (Kind.ADD, "/coda/rig.test/bin", "100:c"),
        (Kind.DELETE, "/coda/rig.test/old", "10"),
        (Kind.ADD, "/coda/rig.test/etc/motd", "10"),
        (Kind.ADD, "/coda/rig.test/x", "5:d+"),
        (Kind.ADD, "/coda/rig.test/#odd", "10"),
    ]
    assert [(one.kind, one.path, one.verbosity, one.uid) for one in commands[7:]] == [
        (Kind.LIST, "", 0, None),
        (Kind.LIST, "/tmp/out", 0, 1000),
        (Kind.VERIFY, "", 0, None),
        (Kind.VERIFY, "/tmp/out", 101, 1000),
        (Kind.WALK, "", 0, None),
        (Kind.ON, "", 0, None),
        (Kind.OFF, "", 0, None),
    ]


def test_commands_are_carried_out_by_kind() -> None:
    commands, _ = parse("walk\non\nadd b\nlist\ndelete a\nadd a\nclear 5\n", "f")
    assert [one.kind.value for one in ordered(commands)] == [
        "clear", "add", "add", "delete", "list", "walk", "on",
    ]  # fmt: skip
    assert [one.path for one in ordered(commands)][1:3] == ["b", "a"]


def test_mistakes_are_told_with_their_place() -> None:
    text = "# good\nadd a 5\n"
    text += "  frobnicate\nadd\nadd x 10:q+\nadd y 2000\nclear me\nwalk fast\nadd z 1 2\non #off\no\n"
    commands, mistakes = parse(text, "work.hoard")
    assert [str(one).split(": ")[0] for one in mistakes] == [
        "work.hoard:3:3",
        "work.hoard:4:4",
        "work.hoard:5:10",
        "work.hoard:6:7",
        "work.hoard:7:7",
        "work.hoard:8:6",
        "work.hoard:9:9",
        "work.hoard:11:1",
    ]
    assert "'q+' is no attribute" in mistakes[2].text
    assert [one.kind for one in commands] == [Kind.ADD, Kind.ON]


def test_comments_and_quotations() -> None:
    commands, mistakes = parse('#c\n add "a b\\"c" 7:c+ # because\nadd x # plain\nadd "open\n', "f")
    assert commands == [
        Command(Kind.ADD, 2, 6, 'a b"c', Wish(7, Expand.CHILDREN)),
        Command(Kind.ADD, 3, 5, "x"),
    ]
    assert [(one.line, one.column) for one in mistakes] == [(4, 5)]


def test_descendants_win() -> None:
    assert parse_wish("c+:d+") == Wish(expand=Expand.DESCENDANTS)
    assert parse_wish("d+:c+:3") == Wish(3, Expand.DESCENDANTS)


paths = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)
wishes = st.builds(Wish, st.integers(1, 1000), st.sampled_from(Expand), st.sampled_from(Expand))


@given(paths, wishes)
def test_what_is_written_is_read_again(path: str, wish: Wish) -> None:
    (command,), mistakes = parse(write(path, wish), "f")
    assert (command.path, command.wish, mistakes) == (path, wish, [])


@given(st.text())
def test_any_text_is_read_without_failing(text: str) -> None:
    commands, mistakes = parse(text, "f")
    assert len(commands) + len(mistakes) <= len(text.splitlines())
