"""The rules that need no disk and no network."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from realmfs.venus.ahead import Walk
from realmfs.venus.batch import MAKES, Kind, Rules, Waiting, Why, choose
from realmfs.venus.events import CallbackBroken, CallMade, Dropped, EventStream, Progress, Reintegrating
from realmfs.venus.optimise import Past, plan
from realmfs.vice.log import (
    Chmod,
    Chown,
    Create,
    Link,
    MakeDir,
    Remove,
    RemoveDir,
    Rename,
    Store,
    SymLink,
    Utimes,
)

ATTRIBUTES = [Store.OPCODE, Utimes.OPCODE, Chown.OPCODE, Chmod.OPCODE]


def past(*opcodes: int, **marks: bool) -> list[Past]:
    return [Past(n, opcode, as_object=True, **marks) for n, opcode in enumerate(opcodes)]


# -- superseded records ----------------------------------------------------------------------------------


def test_the_table_of_superseded_records() -> None:
    store, utimes, chown, chmod = ATTRIBUTES
    cases = [
        (store, [store], (0,)),
        (store, [store, chown], ()),
        (store, [utimes, utimes], (0, 1)),
        (store, [chmod], ()),
        (utimes, [store, utimes], (1,)),
        (chown, [chown, store], (0,)),
        (chmod, [chmod], (0,)),
        (chmod, [chmod, store], ()),
        (chown, [store, chown, store], (1, 0)),  # the barrier goes, and then what it kept apart
        (store, [chmod, store, chmod], (1, 0)),
        (store, [Create.OPCODE, store], (1,)),
    ]
    for new, before, cancelled in cases:
        got = plan(new, past(*before))
        assert set(got.cancel) == set(cancelled), (new, before, got)
        assert got.log


def test_removal_of_what_was_made_here() -> None:
    made = past(Create.OPCODE, Store.OPCODE, Chmod.OPCODE, Rename.OPCODE)
    assert plan(Remove.OPCODE, made) == plan(Remove.OPCODE, made)
    assert plan(Remove.OPCODE, made).cancel == (0, 1, 2, 3)
    assert not plan(Remove.OPCODE, made).log
    assert plan(Remove.OPCODE, past(SymLink.OPCODE)).cancel == (0,)
    assert plan(Remove.OPCODE, past(Create.OPCODE, Link.OPCODE), last_name=False).log
    assert plan(Remove.OPCODE, past(Create.OPCODE, Link.OPCODE), last_name=False).cancel == ()
    on_its_way = [Past(0, Create.OPCODE, as_object=True, frozen=True), *past(Store.OPCODE)]
    assert plan(Remove.OPCODE, on_its_way).log
    old = past(Store.OPCODE, Utimes.OPCODE)
    assert plan(Remove.OPCODE, old).cancel == (0, 1)
    assert plan(Remove.OPCODE, old).log


def test_removal_of_a_directory_made_here_unless_something_was_entered() -> None:
    made = past(MakeDir.OPCODE, Rename.OPCODE)
    assert not plan(RemoveDir.OPCODE, made).log
    entered = [*made, Past(2, Create.OPCODE, as_object=False)]
    assert plan(RemoveDir.OPCODE, entered).log
    assert plan(RemoveDir.OPCODE, entered).cancel == ()


@given(st.lists(st.sampled_from(ATTRIBUTES), max_size=12))
def test_what_is_cancelled_changes_no_outcome(opcodes: list[int]) -> None:
    """Replaying the shortened log must leave the same contents, times, owner and mode as the long one."""
    log: list[tuple[int, int]] = []
    everything: list[tuple[int, int]] = []
    for number, opcode in enumerate(opcodes):
        got = plan(opcode, [Past(n, o, as_object=True) for n, o in log])
        log = [entry for entry in log if entry[0] not in got.cancel]
        log.append((number, opcode))
        everything.append((number, opcode))
    assert replay(log) == replay(everything)
    stores = [n for n, opcode in log if opcode == Store.OPCODE]
    chowns = [n for n, opcode in log if opcode == Chown.OPCODE]
    assert len(chowns) <= 1
    assert len(stores) <= len(chowns) + 1


def replay(log: list[tuple[int, int]]) -> dict[str, int]:
    state: dict[str, int] = {}
    for number, opcode in log:
        if opcode == Store.OPCODE:
            state["contents"] = state["time"] = number
        else:
            state[{Utimes.OPCODE: "time", Chown.OPCODE: "owner", Chmod.OPCODE: "mode"}[opcode]] = number
    return state


@given(st.lists(st.sampled_from(ATTRIBUTES), max_size=8), st.sampled_from(ATTRIBUTES))
def test_blocked_records_are_left_alone(opcodes: list[int], new: int) -> None:
    assert plan(new, past(*opcodes, blocked=True)).cancel == ()


# -- batches -----------------------------------------------------------------------------------------------

OPCODES = [Create.OPCODE, Store.OPCODE, Chmod.OPCODE, Rename.OPCODE, Remove.OPCODE]
RECORDS = st.lists(
    st.tuples(
        st.sampled_from(OPCODES),
        st.frozensets(st.integers(1, 6), min_size=1, max_size=2),
        st.frozensets(st.integers(7, 9), max_size=2),
        st.frozensets(st.sampled_from("abc"), max_size=2),
        st.sampled_from([10, 10, 10, 5000]),
        st.sampled_from(["", "", "", "held", "blocked"]),
    ),
    max_size=30,
)


def depends(one: Waiting, other: Waiting) -> bool:
    """Tell whether two records must stay in order."""
    return bool(
        one.objects & other.objects
        or one.objects & other.parents
        or one.parents & other.objects
        or one.names & other.names
    )


@given(RECORDS, st.booleans())
def test_batches_keep_the_order_of_what_belongs_together(
    records: list[tuple[int, frozenset[int], frozenset[int], frozenset[str], int, str]], own_servers: bool
) -> None:
    waiting = [
        Waiting(
            n,
            opcode,
            objects,
            parents if opcode != Store.OPCODE else frozenset(),
            names if opcode != Store.OPCODE else frozenset(),
            length if opcode == Store.OPCODE else 0,
            held=mark == "held" and opcode == Store.OPCODE,
            blocked=mark == "blocked",
        )
        for n, (opcode, objects, parents, names, length, mark) in enumerate(records)
    ]
    rules = Rules(own_servers, records=5, files=3, big=1000, size=25, directories=2)
    sent: list[int] = []
    uploaded: set[int] = set()
    while True:
        rest = [replace(r, uploaded=r.sequence in uploaded) for r in waiting if r.sequence not in sent]
        choice = choose(rest, rules)
        uploaded |= set(choice.uploads)
        if choice.batch is None:
            if not choice.uploads:
                break
            continue
        batch = choice.batch
        chosen = [waiting[n] for n in batch.sequences]
        assert 0 < len(chosen) <= 5
        assert batch.sequences == tuple(sorted(batch.sequences))
        stores = [record.length for record in chosen if record.opcode == Store.OPCODE]
        assert len(stores) <= 3
        assert len(stores) < 2 or sum(stores) <= 25
        assert not any(record.held or record.blocked for record in chosen)
        assert own_servers or not stores or len(stores) == len(chosen)
        directories = frozenset[int]().union(*(record.parents for record in chosen))
        assert own_servers or len(chosen) == 1 or len(directories) <= 2
        if batch.kind is Kind.CHANGES:
            assert not any(record.opcode in MAKES for record in chosen)
        assert batch.kind is not Kind.HANDLE or len(chosen) == 1
        sent += batch.sequences
    for place, number in enumerate(sent):
        earlier = [n for n in range(number) if depends(waiting[n], waiting[number])]
        assert set(earlier) <= set(sent[:place]), "a record overtook one that it depends on"
    assert all(record.sequence in sent or _waits(record, waiting, sent) for record in waiting)


def _waits(record: Waiting, waiting: list[Waiting], sent: list[int]) -> bool:
    """Tell whether a record has a reason to stay: it is held, or belongs with one that stays."""
    if record.held or record.blocked:
        return True
    return any(w.sequence not in sent and depends(w, record) for w in waiting[: record.sequence])


RULES = Rules(own_servers=False, records=10, files=10, big=1000, size=1000)


def test_only_what_depends_on_a_blocked_record_waits_with_it() -> None:
    root = frozenset({100})
    waiting = [
        Waiting(1, Create.OPCODE, frozenset({1}), root, frozenset("a"), blocked=True),
        Waiting(2, Create.OPCODE, frozenset({2}), root, frozenset("b")),
        Waiting(3, Rename.OPCODE, frozenset({3}), root, frozenset("ca")),
        Waiting(4, Utimes.OPCODE, root),
        Waiting(5, Create.OPCODE, frozenset({5}), frozenset({1}), frozenset("d")),
        Waiting(6, Create.OPCODE, frozenset({6}), root, frozenset("e")),
    ]
    choice = choose(waiting, RULES)
    assert choice.batch is not None
    assert choice.batch.sequences == (2,), "6 comes after 4, which sets the time of its directory"
    rest = choose([waiting[0], *waiting[2:]], RULES)
    assert rest.batch is None
    assert rest.why is Why.DECISION


def test_what_may_be_refused_goes_apart_from_creations() -> None:
    waiting = [
        Waiting(1, Create.OPCODE, frozenset({1}), frozenset({9}), frozenset("a")),
        Waiting(2, Rename.OPCODE, frozenset({1}), frozenset({9}), frozenset("ab")),
        Waiting(3, Chmod.OPCODE, frozenset({1})),
        Waiting(4, Chmod.OPCODE, frozenset({2})),
        Waiting(5, Remove.OPCODE, frozenset({3}), frozenset({9}), frozenset("c")),
        Waiting(6, Create.OPCODE, frozenset({6}), frozenset({9}), frozenset("d")),
    ]
    first = choose(waiting, RULES).batch
    assert first is not None
    assert (first.kind, first.sequences) == (Kind.MAKES, (1, 2, 3, 6))
    second = choose(waiting[3:5], RULES).batch
    assert second is not None
    assert (second.kind, second.sequences) == (Kind.CHANGES, (4, 5))


def test_a_large_store_is_uploaded_beside_the_rest() -> None:
    waiting = [
        Waiting(1, Create.OPCODE, frozenset({1}), frozenset({9}), frozenset("a")),
        Waiting(2, Store.OPCODE, frozenset({1}), length=5000),
        Waiting(3, Chmod.OPCODE, frozenset({1})),
        Waiting(4, Create.OPCODE, frozenset({4}), frozenset({9}), frozenset("b")),
    ]
    choice = choose(waiting, RULES)
    assert choice.batch is not None
    assert choice.batch.sequences == (1, 4)
    assert choice.uploads == (), "the servers do not know the file yet"
    choice = choose(waiting[1:3], RULES)
    assert (choice.batch, choice.uploads, choice.why) == (None, (2,), Why.UPLOAD)
    choice = choose([replace(waiting[1], uploaded=True), waiting[2]], RULES)
    assert choice.batch is not None
    assert (choice.batch.kind, choice.batch.sequences) == (Kind.HANDLE, (2,))


def test_nothing_overtakes_a_record_that_is_too_young() -> None:
    waiting = [
        Waiting(1, Create.OPCODE, frozenset({1}), young=True),
        Waiting(2, Create.OPCODE, frozenset({2})),
    ]
    choice = choose(waiting, RULES)
    assert (choice.batch, choice.why) == (None, Why.YOUNG)


# -- reading ahead ------------------------------------------------------------------------------------------


@given(st.permutations([b"%02d" % n for n in range(40)]), st.booleans())
def test_a_walk_in_order_is_brought_ahead_of_once(listed: list[bytes], by_name: bool) -> None:
    walk = Walk(listed)
    order = sorted(listed) if by_name else listed
    brought: list[bytes] = []
    late = 0
    for name in order:
        late += name not in brought
        names = walk.used(name, 8)
        assert len(names) <= 8 + 1
        brought += names
    assert late <= 6
    assert walk.in_order


def test_a_random_walk_brings_nothing() -> None:
    names = [b"%03d" % n for n in range(100)]
    walk = Walk(names)
    assert not any(walk.used(names[n * 37 % 100], 32) for n in range(100))


# -- events -------------------------------------------------------------------------------------------------


def test_events_speak_as_codacon_does() -> None:
    assert CallMade("GetAttr", "f").line() == "fetch::GetAttr f"
    assert CallMade("GetAttr", "f", done=True).line() == "fetch::getattr f done"
    assert CallbackBroken("s1", "7f.1.1").line() == "callback::Callback s1 (7f.1.1)"
    assert Reintegrating("vol", 3, 10).line() == "reintegrate::vol, 3/10"
    assert Progress("f", 4, 10, 2).line() == "progress::fetching (f) 40% (4Bs/10Bs) [2 - 4]"
    assert len(CallMade("x" * 300, "y").line().encode()) == 255
    event = CallMade("GetAttr", "f", time=1.0).json()
    assert event["kind"] == "fetch"
    assert event["event"] == "CallMade"
    assert event["object"] == "f"


def test_a_slow_watcher_is_told_what_it_lost() -> None:
    stream = EventStream(watchers=1)
    with stream.watch(limit=3) as watcher:
        for number in range(10):
            stream.publish(CallMade(str(number), ""))
        assert [event.text() for event in watcher.waiting()] == ["0 ", "1 ", "2 "]
        stream.publish(CallMade("later", ""))
        dropped, later = watcher.waiting()
        assert dropped == Dropped(7, time=dropped.time)
        assert later.text() == "later "
    assert not stream._watchers
