"""What survives a restart, and what a damaged file does."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.realms import memory
from realmfs.realms.lookup import RootServer
from realmfs.realms.memory import FILE_NAME, Location, Memory

PLACE = Location(0x7F000000, "/", 3, ((0, 0x1000001, "10.0.0.1"), (2, 0x3000001, "10.0.0.3")))


async def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    first = Memory(tmp_path)
    known = first.realm("r.test")
    known.servers = (RootServer("s1.r.test", ("10.0.0.1", 2432), 1, 2),)
    known.reached = True
    known.root_volume = "/"
    known.remember(PLACE)
    first.touch()
    await first.save()
    again = Memory(tmp_path)
    assert again.realms == first.realms
    assert again.realm("r.test").by_id(PLACE.id) == PLACE


async def test_only_changes_are_written(tmp_path: Path) -> None:
    kept = Memory(tmp_path)
    await kept.save()
    assert not (tmp_path / FILE_NAME).exists()


async def test_a_write_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Memory(tmp_path)
    kept.realm("a.test").servers = (RootServer("", ("10.0.0.1", 1)),)
    kept.touch()
    await kept.save()
    before = (tmp_path / FILE_NAME).read_text()

    def fails(fd: int) -> None:
        raise OSError(28, "disk full")

    kept.realm("b.test").servers = (RootServer("", ("10.0.0.2", 1)),)
    kept.touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        patch.setattr(memory.log, "warning", lambda *_: None)
        await kept.save()
    assert (tmp_path / FILE_NAME).read_text() == before
    await kept.save()  # tried again without another change
    assert set(Memory(tmp_path).realms) == {"a.test", "b.test"}


@pytest.mark.logs("cannot be read")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"version": 2, "realms": {}}',
        '{"version": 1}',
        '{"version": 1, "realms": {"a": 1}}',
        '{"version": 1, "realms": {"a": {"servers": [{}]}}}',
    ],
)
def test_a_damaged_file_is_set_aside(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    assert Memory(tmp_path).realms == {}
    assert not (tmp_path / FILE_NAME).exists()
    assert (tmp_path / FILE_NAME).with_suffix(".bad").read_text() == text


def test_a_new_name_replaces_the_old() -> None:
    known = Memory(None).realm("r.test")
    known.remember(PLACE)
    known.remember(Location(PLACE.id, "renamed", 3, PLACE.replicas))
    assert list(known.volumes) == ["renamed"]


def test_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_REALMS", 3)
    monkeypatch.setattr(memory, "MAX_VOLUMES", 3)
    kept = Memory(None)
    for i in range(5):
        kept.realm(f"r{i}.test").reached = i < 2
        kept.realm("r0.test").remember(Location(i, f"v{i}", 4, ()))
    assert set(kept.realms) == {"r0.test", "r1.test", "r4.test"}
    assert set(kept.realm("r0.test").volumes) == {"v2", "v3", "v4"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@given(JSON)
@pytest.mark.logs("cannot be read")
def test_any_content_is_survived(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    path = tmp_path_factory.mktemp("state")
    (path / FILE_NAME).write_text(json.dumps({"version": 1, "realms": content}))
    Memory(path)
