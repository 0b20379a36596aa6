"""Hoarding over real servers on a fake network."""

import errno
import os
import random
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio

from realmfs.cache.hoard import Expand
from realmfs.cache.limits import Limits
from realmfs.realms import reading
from realmfs.realms.core import Core
from realmfs.realms.round import Answers
from realmfs.server.mounts import make_mount
from realmfs.venus.hoardcontext import Context, State
from realmfs.venus.hoardlanguage import Wish
from realmfs.venus.hoardwalk import Walk
from realmfs.vice.calls import Fetch, FetchPartial, GetAttr, ValidateAttrs, ValidateVols
from tests.t5_venus.world import ME, REALM, Client, World, refused, until, world

DEEP = Wish(600, Expand.DESCENDANTS)


async def tree(here: World, files: int = 12) -> tuple[Client, dict[str, bytes]]:
    """Return a client that has written a small tree, and what is in it."""
    writer = await here.client()
    contents = {}
    await writer.mkdir(f"{REALM}/src")
    await writer.mkdir(f"{REALM}/src/lib")
    for number in range(files):
        path = f"{REALM}/src/lib/f{number}" if number % 2 else f"{REALM}/src/f{number}"
        contents[path] = random.Random(number).randbytes(number * 100)
        await writer.write(path, contents[path])
    contents[f"{REALM}/src/big"] = random.Random(99).randbytes(600_000)
    await writer.write(f"{REALM}/src/big", contents[f"{REALM}/src/big"])
    await writer.drained()
    return writer, contents


async def all_here(client: Client, contents: dict[str, bytes]) -> None:
    """Check that everything can be read without servers, now."""
    client.offline()
    await until(lambda: not any(volume.reachable for volume in client.venus.core.volumes))
    for path, data in contents.items():
        assert await client.read(path) == data, path
    client.online()


async def test_a_walk_brings_a_tree_and_it_stays_when_the_servers_go(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as here:
        _, contents = await tree(here)
        client = await here.client()
        hoard = client.venus.hoard
        await hoard.add(ME.uid, f"{REALM}/src", DEEP)
        outcome = await hoard.walk()
        assert outcome.complete
        assert outcome.survey.ready, outcome.survey.lacks
        assert outcome.bytes >= sum(len(data) for data in contents.values())
        await all_here(client, contents)


async def test_what_several_entries_want_counts_in_each_and_once_in_all(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as here:
        await tree(here)
        client = await here.client()
        await client.venus.hoard.add(ME.uid, f"{REALM}/src", DEEP)
        await client.venus.hoard.add(ME.uid, f"{REALM}/src/lib", Wish(300, Expand.CHILDREN))
        survey = await client.venus.hoard.look()
        assert len(survey.lacks) == len({lack.path for lack in survey.lacks}) == 13
        survey = (await client.venus.hoard.walk()).survey
        whole, part = sorted(survey.tallies.values(), key=lambda tally: -tally.objects)
        assert (part.objects, part.present, whole.objects, whole.present) == (9, 9, 16, 16)
        assert survey.total == whole


async def test_a_second_walk_costs_no_call_while_promises_hold(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as here:
        await tree(here)
        client = await here.client()
        await client.venus.hoard.add(ME.uid, f"{REALM}/src", DEEP)
        await client.venus.hoard.walk()
        here.realm.counted()
        outcome = await client.venus.hoard.walk()
        assert (outcome.files, outcome.survey.ready) == (0, True)
        assert not here.realm.counted()


async def test_small_files_cost_one_fetch_each_and_a_validation_for_fifty(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as here:
        writer = await here.client()
        await writer.mkdir(f"{REALM}/many")
        for number in range(120):
            await writer.write(f"{REALM}/many/f{number}", b"%d" % number)
        await writer.drained()
        client = await here.client()
        await client.venus.hoard.add(ME.uid, f"{REALM}/many", DEEP)
        here.realm.counted()
        await client.venus.hoard.walk()
        calls = here.realm.counted()
        assert calls[FetchPartial.OPCODE] + calls[Fetch.OPCODE] <= 120 + 4
        assert calls[ValidateAttrs.OPCODE] <= 6
        assert calls[GetAttr.OPCODE] <= 4


async def test_what_is_new_or_changed_elsewhere_arrives_with_the_next_walk(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as here:
        writer, contents = await tree(here)
        client = await here.client()
        hoard = client.venus.hoard
        await hoard.add(ME.uid, f"{REALM}/src", DEEP)
        await hoard.walk()
        await writer.mkdir(f"{REALM}/src/new")
        for path in (f"{REALM}/src/new/one", f"{REALM}/src/lib/two", f"{REALM}/src/f2"):
            contents[path] = path.encode() * 50
            await writer.write(path, contents[path])
        await writer.unlink(f"{REALM}/src/f4")
        del contents[f"{REALM}/src/f4"]
        await writer.drained()
        survey = await hoard.look()
        assert sorted(lack.path.rsplit("/", 1)[1] for lack in survey.lacks) == ["f2", "one", "two"]
        assert {lack.verdict for lack in survey.lacks} == {"*** Missing/Invalid ***"}
        assert (await hoard.walk()).survey.ready
        await all_here(client, contents)


async def test_walks_begin_by_themselves(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as here:
        writer, contents = await tree(here)
        client = await here.client()
        hoard = client.venus.hoard
        hindrance = "on a metered link"
        hoard.hindrance = lambda: hindrance
        await hoard.add(ME.uid, f"{REALM}/src", DEEP)
        await hoard.walk()
        await writer.write(f"{REALM}/src/later", b"later")
        await writer.drained()
        await trio.sleep(1000)
        assert hoard.survey is not None
        before = hoard.last_walk
        hindrance = ""
        hoard.on = False
        await trio.sleep(1000)
        assert hoard.last_walk == before
        hoard.on = True
        await trio.sleep(1000)
        assert hoard.last_walk != before
        contents[f"{REALM}/src/later"] = b"later"
        await all_here(client, contents)


async def test_better_connectivity_begins_a_walk(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as here:
        writer, _ = await tree(here)
        client = await here.client()
        hoard = client.venus.hoard
        await hoard.add(ME.uid, f"{REALM}/src", DEEP)
        await hoard.walk()
        client.offline()
        await trio.sleep(120)
        client.online()
        await until(lambda: hoard.last_walk is not None and trio.current_time() - hoard.last_walk < 5, 200)
        assert writer is not client


async def test_an_entry_follows_renames_here_and_elsewhere(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as here:
        writer, _ = await tree(here)
        client = await here.client()
        hoard = client.venus.hoard
        await hoard.add(ME.uid, f"{REALM}/src/lib", DEEP)
        await hoard.walk()
        await writer.rename(f"{REALM}/src/lib", f"{REALM}/src/library")
        await writer.mkdir(f"{REALM}/else")
        await writer.rename(f"{REALM}/src/library", f"{REALM}/else/library")
        await writer.drained()
        assert (await hoard.walk()).survey.ready
        assert [entry.path for entry in hoard.entries()] == [b"else/library"]
        await client.rename(f"{REALM}/else", f"{REALM}/where")
        assert (await hoard.walk()).survey.ready
        assert [entry.path for entry in hoard.entries()] == [b"where/library"]
        context = hoard.contexts.roots[hoard.entries()[0].id]
        assert len(context.members) == 6


async def test_entries_survive_a_restart_and_bind_again(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as here:
        _, contents = await tree(here)
        client = await here.client()
        await client.venus.hoard.add(ME.uid, f"{REALM}/src", DEEP)
        await client.venus.hoard.walk()
        await client.restart()
        here.realm.counted()
        outcome = await client.venus.hoard.walk()
        assert (outcome.files, outcome.survey.ready) == (0, True), outcome.survey.lacks
        calls = here.realm.counted()
        assert calls[FetchPartial.OPCODE] <= 1, "that is how a server is asked whether it knows the call"
        assert not calls[Fetch.OPCODE]
        await all_here(client, contents)


async def test_a_missing_name_is_waited_for(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as here:
        writer, _ = await tree(here)
        client = await here.client()
        hoard = client.venus.hoard
        await hoard.add(ME.uid, f"{REALM}/src/not/yet", Wish(5))
        survey = (await hoard.walk()).survey
        assert [(lack.verdict, lack.path) for lack in survey.lacks] == [
            ("*** Not bound ***", f"/{REALM}/src/not/yet")
        ]
        (context,) = hoard.contexts.roots.values()
        assert context.state is State.VALID
        await writer.mkdir(f"{REALM}/src/not")
        await writer.write(f"{REALM}/src/not/yet", b"here")
        await writer.drained()
        assert (await hoard.walk()).survey.ready


async def test_links_are_followed_and_get_entries(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as here:
        writer, contents = await tree(here)
        await writer.symlink(f"{REALM}/way", b"src/lib")
        await writer.mkdir(f"{REALM}/links")
        await writer.symlink(f"{REALM}/links/to-big", b"../src/big")
        await writer.symlink(f"{REALM}/links/nowhere", b"../gone/x")
        await writer.drained()
        client = await here.client()
        hoard = client.venus.hoard
        await hoard.add(ME.uid, f"{REALM}/way/f3", Wish(7))
        assert [(entry.path, entry.priority) for entry in hoard.entries()] == [
            (b"src/lib/f3", 7),
            (b"way", 7),
        ]
        await hoard.add(ME.uid, f"{REALM}/links", DEEP)
        assert (await hoard.walk()).survey.ready
        client.offline()
        await until(lambda: not any(volume.reachable for volume in client.venus.core.volumes))
        assert await client.read(f"{REALM}/src/big") == contents[f"{REALM}/src/big"]
        assert await client.read(f"{REALM}/src/lib/f3") == contents[f"{REALM}/src/lib/f3"]


async def test_mounted_volumes_belong_to_the_tree(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as here:
        here.realm.store.create_volume("sub", anyuser=127)
        writer, contents = await tree(here)
        make_mount(here.realm.store, "sub", "/src/lib/m")
        await trio.sleep(60)  # nobody calls back what is made behind the servers' back
        await writer.restart()
        await writer.mkdir(f"{REALM}/src/lib/m/d")
        contents[f"{REALM}/src/lib/m/d/deep"] = b"deep" * 1000
        await writer.write(f"{REALM}/src/lib/m/d/deep", contents[f"{REALM}/src/lib/m/d/deep"])
        await writer.drained()
        client = await here.client()
        hoard = client.venus.hoard
        await hoard.add(ME.uid, f"{REALM}/src", DEEP)
        for _ in range(2):
            assert (await hoard.walk()).survey.ready
        await all_here(client, contents)
        (entry,) = await hoard.add(ME.uid, f"{REALM}/src/lib/m/d", Wish(9))
        assert entry.path == b"d", "relative to the root of the volume that holds it"


async def test_removed_entries_give_their_priority_back(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as here:
        await tree(here)
        client = await here.client()
        hoard, objects = client.venus.hoard, client.cache.objects
        await hoard.add(ME.uid, f"{REALM}/src", DEEP)
        await hoard.add(ME.uid, f"{REALM}/src/lib", Wish(20))
        await hoard.walk()
        inside = (await client.look(f"{REALM}/src/lib/f1")).ino
        directory = (await client.look(f"{REALM}/src/lib")).ino
        assert [row.hoard for row in (objects.load(inside), objects.load(directory)) if row] == [600, 600]
        assert await hoard.remove(ME.uid, f"{REALM}/src") == 1
        assert [row.hoard for row in (objects.load(inside), objects.load(directory)) if row] == [0, 20]
        assert await hoard.clear(None) == 1
        assert {hoard for _, hoard in objects.hoard_after(0, 1000)} == {0}


async def test_the_cache_fills_with_the_most_important(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as here:
        writer = await here.client()
        for name in ("low", "high"):
            await writer.mkdir(f"{REALM}/{name}")
            for number in range(30):
                await writer.write(f"{REALM}/{name}/f{number}", bytes(100_000))
        await writer.drained(600)
        client = await here.client(limits=Limits(4 << 20, 1000, 1000, 0))
        hoard = client.venus.hoard
        await hoard.add(ME.uid, f"{REALM}/low", Wish(100, Expand.CHILDREN))
        await hoard.add(ME.uid, f"{REALM}/high", Wish(900, Expand.CHILDREN))
        plan = await hoard.plan()
        assert {lack.path.split("/")[2] for lack in plan.short} == {"low"}
        outcome = await hoard.walk()
        assert client.cache.containers.used <= 4 << 20
        missing = [lack.path.split("/")[2] for lack in outcome.survey.lacks]
        assert missing == ["low"] * len(plan.short)
        assert outcome.files - 3 <= len(plan.fetch)
        states = [context.state for context in hoard.contexts.each()]
        assert states.count(State.INDIGENT) == len(missing)


async def test_a_plan_says_what_would_go_and_moves_nothing(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as here:
        writer = await here.client()
        await writer.mkdir(f"{REALM}/want")
        for number in range(10):
            await writer.write(f"{REALM}/want/f{number}", bytes(100_000))
            await writer.write(f"{REALM}/junk{number}", bytes(100_000))
        await writer.drained(600)
        client = await here.client(limits=Limits(1_500_000, 1000, 1000, 0))
        for number in range(10):
            await client.read(f"{REALM}/junk{number}")
        hoard = client.venus.hoard
        await hoard.add(ME.uid, f"{REALM}/want", DEEP)
        used = client.cache.containers.used
        plan = await hoard.plan()
        assert (len(plan.fetch), len(plan.evict), plan.short) == (10, 5, [])
        assert client.cache.containers.used == used
        assert (await hoard.walk()).survey.ready
        gone = {path for path, _ in plan.evict}
        for number in range(10):
            path = f"/{REALM}/junk{number}"
            assert await present(client, path) == (path not in gone)


async def present(client: Client, path: str) -> bool:
    node = client.venus.core.nodes.by_number((await client.look(path)).ino)
    return client.venus.hoard.binder.has_data(node)


async def test_a_walk_stops_cleanly_and_goes_on(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as here:
        _, contents = await tree(here, 60)
        client = await here.client()
        hoard = client.venus.hoard
        await hoard.add(ME.uid, f"{REALM}/src", DEEP)
        outcomes = []

        async def walk() -> None:
            outcomes.append(await hoard.walk())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(walk)
            await until(lambda: hoard.progress is not None and hoard.progress.files > 5)
            assert hoard.stop()
        assert not outcomes[0].complete
        assert not outcomes[0].survey.ready
        assert (await hoard.walk()).survey.ready
        await all_here(client, contents)


async def test_a_walk_without_servers_fails_nothing(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as here:
        await tree(here)
        client = await here.client()
        hoard = client.venus.hoard
        await hoard.add(ME.uid, f"{REALM}/src", DEEP)
        client.offline()
        await trio.sleep(60)
        outcome = await hoard.walk()
        assert not outcome.survey.ready


async def test_rights_decide_what_is_hoarded(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path, anyuser=8) as here:
        client = await here.client()
        hoard = client.venus.hoard
        await hoard.add(ME.uid, f"{REALM}", DEEP)
        assert (await hoard.walk()).survey.ready
        with refused(errno.ENOENT):
            await hoard.add(ME.uid, "", DEEP)


async def test_walks_do_not_count_as_use(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as here:
        await tree(here)
        client = await here.client()
        await client.venus.hoard.add(ME.uid, f"{REALM}/src", DEEP)
        await client.venus.hoard.walk()
        tick = client.cache.objects.tick
        await client.restart()
        await client.venus.hoard.walk()
        assert client.cache.objects.tick <= tick


async def test_a_user_waits_for_his_file_only(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """What somebody opens during a walk comes at once, though a walk brings the same."""
    async with world(tmp_path, latency=0.02) as here:
        _, contents = await tree(here, 100)
        client = await here.client()
        hoard = client.venus.hoard
        await hoard.add(ME.uid, f"{REALM}/src", DEEP)
        await client.look(f"{REALM}/src")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hoard.walk)
            await until(lambda: hoard.progress is not None and hoard.progress.files > 1)
            for path in (f"{REALM}/src/lib/f99", f"{REALM}/src/f0", f"{REALM}/src/f98"):
                start = trio.current_time()
                assert await client.read(path) == contents[path]
                assert trio.current_time() - start < 1.0
        await all_here(client, contents)


async def test_profiles(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as here:
        await tree(here)
        client = await here.client()
        hoard = client.venus.hoard
        directory = tmp_path / "profiles"
        directory.mkdir()
        hoard.use_profiles(directory)
        work = directory / "work"
        work.write_text(
            f"# what I need\nclear\nadd /coda/{REALM}/src/lib 300:d+\nadd /coda/{REALM}/src/f2 nonsense\n"
            "add /coda/nowhere.test/x\nwalk\n"
        )
        with refused(errno.ENOENT):
            hoard.profiles.enable("play", ME.uid)
        hoard.profiles.enable("work", ME.uid)
        assert (await hoard.walk()).survey.ready
        (profile,) = hoard.profiles.all()
        assert (profile.name, profile.enabled, profile.entries) == ("work", True, 1)
        assert [str(one).split(": ")[0] for one in profile.mistakes] == [
            f"{work}:4:{len(REALM) + 19}",
            f"{work}:5:5",
        ]
        (first,) = hoard.entries()
        work.write_text(f"add /coda/{REALM}/src/lib 300:d+\nadd {REALM}/src/big\n")
        await hoard.walk()
        assert {entry.path for entry in hoard.entries()} == {b"src/lib", b"src/big"}
        assert first.id in {entry.id for entry in hoard.entries()}, "what is wanted still is left alone"
        await hoard.add(ME.uid, f"{REALM}/src/lib", Wish(5))
        hoard.profiles.disable("work")
        await hoard.release()
        assert [entry.priority for entry in hoard.entries()] == [5]


async def test_present_children_and_descendants_are_entered_one_by_one(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as here:
        await tree(here, 4)
        client = await here.client()
        hoard = client.venus.hoard
        await hoard.add(ME.uid, f"{REALM}/src", Wish(10, now=Expand.CHILDREN))
        assert {entry.path for entry in hoard.entries()} == {
            b"src", b"src/lib", b"src/f0", b"src/f2", b"src/big",
        }  # fmt: skip
        await hoard.add(ME.uid, f"{REALM}/src", Wish(10, now=Expand.DESCENDANTS))
        assert {entry.path for entry in hoard.entries()} >= {b"src/lib/f1", b"src/lib/f3"}
        assert {entry.expand for entry in hoard.entries()} == {Expand.NONE}


async def test_learning_from_what_a_command_opens(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as here:
        await tree(here, 40)
        client = await here.client()
        learner = client.venus.hoard.learner
        monkeypatch.setattr(os, "getsid", lambda pid: {5: 77, 6: 88}[pid])
        monkeypatch.setattr(os, "getpgid", lambda pid: pid)
        learner.begin(77)
        mine = ME.__class__(ME.uid, ME.gid, 5)
        for number in range(1, 40, 2):
            await client.read(f"{REALM}/src/lib/f{number}", mine)
        await client.read(f"{REALM}/src/f2", mine)
        await client.read(f"{REALM}/src/f4", ME.__class__(ME.uid, ME.gid, 6))
        proposals = learner.end(77)
        assert [(one.path, str(one.wish), one.files) for one in proposals] == [
            (f"/{REALM}/src/f2", "100", 1),
            (f"/{REALM}/src/lib", "100:c+", 20),
        ]
        with refused(errno.ENOENT):
            learner.end(77)


async def test_stamps_make_a_restart_cheap(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as here:
        writer, contents = await tree(here, 200)
        client = await here.client()
        hoard = client.venus.hoard
        await hoard.add(ME.uid, f"{REALM}", DEEP)
        assert (await hoard.walk()).survey.ready
        (volume,) = (one for one in client.venus.core.volumes if one.key)
        assert hoard.stamps.hold(volume)
        await client.restart()
        here.realm.counted()
        assert (await client.venus.hoard.walk()).survey.ready
        calls = here.realm.counted()
        assert calls[ValidateVols.OPCODE] <= 2
        assert not calls[ValidateAttrs.OPCODE]
        assert not calls[GetAttr.OPCODE]
        await writer.write(f"{REALM}/src/f2", b"changed")
        contents[f"{REALM}/src/f2"] = b"changed"
        await writer.drained()
        assert await client.read(f"{REALM}/src/f2") == b"changed", "the promise for the volume was broken"
        (volume,) = (one for one in client.venus.core.volumes if one.key)
        assert not client.venus.hoard.stamps.hold(volume)
        await client.restart()
        here.realm.counted()
        assert (await client.venus.hoard.walk()).survey.ready
        assert here.realm.counted()[ValidateAttrs.OPCODE], "stamps that were broken are not shown again"
        await all_here(client, contents)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whatever_others_do_a_walk_brings_it(
    tmp_path: Path, autojump_clock: trio.abc.Clock, seed: int
) -> None:
    """Random changes by somebody else, a walk, and the tree read without servers equals his."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    async with world(tmp_path) as here:
        writer, contents = await tree(here)
        directories = [f"{REALM}/src", f"{REALM}/src/lib"]
        client = await here.client()
        await client.venus.hoard.add(ME.uid, f"{REALM}/src", DEEP)
        for round_ in range(4):
            for step in range(12):
                above, name = chance.choice(directories), f"n{round_}-{step}"
                path = chance.choice(sorted(contents))
                match chance.choice(["make", "make", "change", "remove", "rename", "mkdir"]):
                    case "make":
                        contents[f"{above}/{name}"] = chance.randbytes(chance.choice([0, 10, 5000, 300_000]))
                        await writer.write(f"{above}/{name}", contents[f"{above}/{name}"])
                    case "change":
                        contents[path] = chance.randbytes(chance.choice([0, 10, 5000]))
                        await writer.write(path, contents[path])
                    case "remove":
                        await writer.unlink(path)
                        del contents[path]
                    case "rename":
                        await writer.rename(path, f"{above}/{name}")
                        contents[f"{above}/{name}"] = contents.pop(path)
                    case _:
                        await writer.mkdir(f"{above}/{name}")
                        directories.append(f"{above}/{name}")
            await writer.drained()
            survey = (await client.venus.hoard.walk()).survey
            assert survey.ready, survey.lacks
            await all_here(client, contents)


async def test_a_server_that_goes_and_comes_during_a_walk(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """What got no answer is tried again, and what lost its promise is asked for anew, in the same walk."""
    async with world(tmp_path, latency=0.01) as here:
        _, contents = await tree(here, 150)
        client = await here.client()
        hoard = client.venus.hoard
        await hoard.add(ME.uid, f"{REALM}/src", DEEP)
        outcomes = []

        async def walk() -> None:
            outcomes.append(await hoard.walk())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(walk)
            await until(lambda: hoard.progress is not None and hoard.progress.files > 40)
            await here.realm.stop()
            await here.realm.start(here.nursery)
        assert outcomes[0].survey.ready, outcomes[0].survey.reasons()
        await all_here(client, contents)


async def test_what_is_not_promised_costs_one_question_more_and_no_second_fetch(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replicas of what the reference client wrote become equal only later: no promise until then."""
    stands, begun = reading.promise_stands, trio.current_time()

    def later(core: Core, answers: Answers, given: Mapping[int, bool]) -> bool:
        return trio.current_time() > begun and stands(core, answers, given)

    monkeypatch.setattr(reading, "promise_stands", later)
    async with world(tmp_path) as here:
        _, contents = await tree(here, 150)
        client = await here.client()
        await client.venus.hoard.add(ME.uid, f"{REALM}/src", DEEP)
        begun = trio.current_time() + 1000
        here.realm.counted()
        outcome = await client.venus.hoard.walk()
        assert outcome.survey.ready, outcome.survey.reasons()
        assert outcome.files == 150 + 3, "nothing came twice"
        calls = here.realm.counted()
        assert calls[FetchPartial.OPCODE] + calls[Fetch.OPCODE] <= outcome.files + 5
        assert calls[GetAttr.OPCODE] <= outcome.files + 10
        assert outcome.seconds < 2
        begun = 0.0
        assert (await client.venus.hoard.look()).ready
        await all_here(client, contents)


async def test_what_is_current_but_never_promised_is_not_missing(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replicas can differ in their version vectors for long, though their contents are the same."""
    monkeypatch.setattr(reading, "promise_stands", lambda core, answers, given: False)
    async with world(tmp_path) as here:
        writer, contents = await tree(here, 60)
        client = await here.client()
        hoard = client.venus.hoard
        await hoard.add(ME.uid, f"{REALM}/src", DEEP)
        outcome = await hoard.walk()
        assert outcome.survey.ready, outcome.survey.reasons()
        assert outcome.seconds < 10
        assert (await hoard.look()).ready
        await writer.write(f"{REALM}/src/f2", b"newer")
        await writer.drained()
        assert [lack.path for lack in (await hoard.look()).lacks] == [f"/{REALM}/src/f2"]
        await hoard.walk()
        contents[f"{REALM}/src/f2"] = b"newer"
        await all_here(client, contents)


async def test_what_is_called_back_again_and_again_is_looked_at_once_more_and_not_missing(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers make directories equal time and again while somebody's replicas are resolved."""
    async with world(tmp_path) as here:
        _, contents = await tree(here)
        client = await here.client()
        hoard, core = client.venus.hoard, client.venus.core
        settle, check = Walk.settle, Walk._check
        checks = 0

        def call_back() -> None:
            for volume in core.volumes:
                for node in list(volume.nodes.values()):
                    node.breaks += node.is_directory

        async def disturbed_check(walk: Walk, context: Context) -> None:
            nonlocal checks
            checks += 1
            await check(walk, context)
            call_back()

        async def disturbed_settling(walk: Walk) -> None:
            call_back()
            await settle(walk)
            call_back()

        monkeypatch.setattr(Walk, "_check", disturbed_check)
        monkeypatch.setattr(Walk, "settle", disturbed_settling)
        await hoard.add(ME.uid, f"{REALM}/src", DEEP)
        outcome = await hoard.walk()
        assert outcome.survey.ready, outcome.survey.reasons()
        assert checks < 40, "each directory but once more"
        assert (await hoard.look()).ready
        await all_here(client, contents)


async def test_what_changes_during_a_walk_comes_with_it(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was brought, and called back before the walk's end, is brought again."""
    async with world(tmp_path) as here:
        writer, contents = await tree(here)
        client = await here.client()
        hoard = client.venus.hoard
        data = Walk.data

        async def disturbed(walk: Walk) -> None:
            await data(walk)
            if contents[f"{REALM}/src/f2"] != b"newer":
                contents[f"{REALM}/src/f2"] = b"newer"
                await writer.write(f"{REALM}/src/f2", b"newer")
                await writer.drained()

        monkeypatch.setattr(Walk, "data", disturbed)
        await hoard.add(ME.uid, f"{REALM}/src", DEEP)
        assert (await hoard.walk()).survey.ready
        await all_here(client, contents)


async def test_looking_without_servers_waits_for_all_of_them_at_once(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        names = [f"r{number}.test" for number in range(12)]
        realms = [await w.add_realm(name, f"10.0.2.{number}") for number, name in enumerate(names, 1)]
        a = await w.client()
        for name in (REALM, *names):
            await a.ls(f"/{name}")
        await a.venus.hoard.add(ME.uid, f"/{REALM}", Wish(100))
        for one in (w.realm, *realms):
            await one.stop()
        await a.restart()
        began = trio.current_time()
        survey = await a.venus.hoard.look()
        assert survey.ready
        assert trio.current_time() - began < 10.0


async def test_a_walk_that_a_metered_link_put_off_begins_when_that_is_over(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as here:
        _, contents = await tree(here)
        client = await here.client()
        await client.venus.hoard.add(ME.uid, f"{REALM}/src", DEEP)
        client.offline()
        await client.restart()
        hoard, hindrance = client.venus.hoard, "the battery is at 5 %"
        hoard.hindrance = lambda: hindrance
        client.online()
        await client.ls(f"/{REALM}")
        await trio.sleep(1000)
        assert hoard.walks == 0
        hindrance = ""
        await trio.sleep(100)
        assert hoard.walks == 1
        await all_here(client, contents)
