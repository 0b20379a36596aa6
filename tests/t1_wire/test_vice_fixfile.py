"""Repair files as text: what is printed is read back; what is no command is refused with its line."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.vice.fixfile import FixFileError, format_fix_file, parse_fix_file
from realmfs.vice.repair import RepairCommand, RepairOp, ReplicaRepair

names = st.binary(min_size=1, max_size=60).filter(lambda name: not set(name) & set(b"\0/\n"))
words = st.integers(0, 2**32 - 1)
creations = st.sampled_from(
    [RepairOp.CREATE_FILE, RepairOp.CREATE_DIRECTORY, RepairOp.CREATE_SYMLINK, RepairOp.CREATE_LINK]
)
removals = st.sampled_from([RepairOp.REMOVE, RepairOp.REMOVE_DIRECTORY])
lists = st.sampled_from([RepairOp.SET_ACL, RepairOp.SET_NEGATIVE_ACL])
values = st.sampled_from([RepairOp.SET_MODE, RepairOp.SET_OWNER, RepairOp.SET_MTIME])


def command(op: RepairOp, name: bytes = b"", new: bytes = b"", *numbers: int) -> RepairCommand:
    return RepairCommand(op, name, new, (*numbers, 0, 0, 0, 0, 0)[:5])


commands = st.one_of(
    st.builds(lambda op, n, a, b, c: command(op, n, b"", a, b, c), creations, names, words, words, words),
    st.builds(command, removals, names),
    st.builds(lambda op, n, rights: command(op, n, b"", rights), lists, names, st.integers(0, 127)),
    st.builds(lambda op, value: command(op, b"", b"", value), values, words),
    st.builds(
        lambda old, new, numbers: command(RepairOp.MOVE, old, new, *numbers),
        names,
        names,
        st.tuples(words, words, words, words, words),
    ),
)
sections = st.lists(st.builds(ReplicaRepair, words, st.lists(commands, max_size=6).map(tuple)), max_size=4)


@given(sections)
def test_what_is_printed_is_read_back(replicas: list[ReplicaRepair]) -> None:
    assert parse_fix_file(format_fix_file(replicas, {})) == replicas


def test_what_the_reference_tool_writes_is_read() -> None:
    text = """
        replica s1.rig.test 1000001
            createf  "a+name%21" 7f000000 a2 3f
            removefsl old

            mv old new 7f000000 1 1 a3 40
            setacl System:AnyUser rl
            setacl bob 0
            setmode 755
            setowner 1001
        replica s2.rig.test 2000001
    """
    first, second = parse_fix_file(text)
    assert (first.volume, second.volume, second.commands) == (0x1000001, 0x2000001, ())
    assert [one.op for one in first.commands] == [
        RepairOp.CREATE_FILE,
        RepairOp.REMOVE,
        RepairOp.MOVE,
        RepairOp.SET_ACL,
        RepairOp.SET_ACL,
        RepairOp.SET_MODE,
        RepairOp.SET_OWNER,
    ]
    assert first.commands[0].name == b"a name!"
    assert first.commands[0].parameters == (0x7F000000, 0xA2, 0x3F, 0, 0)
    assert [one.parameters[0] for one in first.commands[3:]] == [9, 0, 0o755, 1001]


@pytest.mark.parametrize(
    "line",
    [
        "createf x 1 2 3",
        "replica s1",
        "replica s1 zz",
        "replica s1 1\ndelacl bob",
        "replica s1 1\ncreatef x 1 2",
        "replica s1 1\ncreatef a/b 1 2 3",
        "replica s1 1\nmv a b 1 2 3",
        "replica s1 1\nsetmode 999",
        "replica s1 1\nsetacl bob xyz",
        "replica s1 1\nremoved",
        'replica s1 1\nremoved "x',
        "replica s1 1\nsetowner 99999999999",
    ],
)
def test_what_is_no_command_is_refused(line: str) -> None:
    with pytest.raises(FixFileError, match="line "):
        parse_fix_file(line)


@given(st.text(max_size=200))
def test_nothing_else_is_raised(text: str) -> None:
    with contextlib.suppress(FixFileError):
        parse_fix_file(f"replica s 1\n{text}")
