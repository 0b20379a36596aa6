"""Access lists and identities: evaluation, the text on the wire, who may change them (directories.md §5)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from realmfs.server.access import Acl, Identity
from realmfs.server.protection import ADMINISTRATORS, ANYUSER, ProtectionError, password_key
from realmfs.server.store import ServerStore
from realmfs.vice import calls
from realmfs.vice.acl import AccessList
from realmfs.vice.errors import Code
from realmfs.vice.types import Fid, Rights, Status
from tests.t2b_server.harness import ALL, Client, Realm, serving

entries = st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 0xFFFFFFFF)), max_size=8).map(tuple)


@given(entries, entries, st.frozensets(st.integers(-9, 9)), st.integers(-9, 9))
def test_evaluation_is_bit_by_bit(
    positive: tuple[tuple[int, int], ...],
    negative: tuple[tuple[int, int], ...],
    ids: frozenset[int],
    anyone: int,
) -> None:
    acl = Acl(positive, negative)
    assert Acl.unpack(acl.pack()) == acl
    identity = Identity(1, ids, False, frozenset({anyone}))
    rights = identity.rights(acl)
    for bit in range(32):
        mask = 1 << bit

        def has(who: frozenset[int], mask: int = mask) -> bool:
            granted = any(rights & mask for name, rights in positive if name in who)
            return granted and not any(rights & mask for name, rights in negative if name in who)

        assert bool(rights & mask) == (has(ids) or has(frozenset({anyone})))


def test_groups_are_followed_through_groups(tmp_path: Path) -> None:
    with ServerStore.create(tmp_path / "data", "test.realm", "127.0.0.1") as store:
        db = store.protection
        ann, bob = db.add_user("ann"), db.add_user("bob")
        inner, outer = db.add_group("inner"), db.add_group("outer")
        db.add_member(outer, inner)
        db.add_member(inner, ann)
        db.add_member(inner, outer)
        assert db.identity(ann).ids == {ann, inner, outer}
        assert db.identity(bob).ids == {bob}
        assert not db.identity(ann).administrator
        admins = db.id_of(ADMINISTRATORS)
        assert admins is not None
        db.add_member(admins, outer)
        assert db.identity(ann).administrator
        db.remove_member(outer, inner)
        assert not db.identity(ann).administrator
        everybody = db.id_of(ANYUSER)
        assert db.identity(None).user == db.identity(4711).user == db.identity(-1).user == everybody
        assert not db.identity(admins).administrator, "a token for a group is nobody's"
        db.remove(ann)
        assert db.identity(ann).user == everybody
        assert db.add_user("new") not in (ann, bob)
        assert [member.name for member in db.members(inner)] == ["outer"]


def test_what_cannot_be_a_user(tmp_path: Path) -> None:
    with ServerStore.create(tmp_path / "data", "test.realm", "127.0.0.1") as store:
        db = store.protection
        db.add_user("ann", user=7)
        for name in ("", "ann", "a b", "7up", "a@b", "a/b", "-x", "x" * 64, "a\nb"):
            with pytest.raises(ProtectionError):
                db.add_user(name)
        for number in (0, -1, 7, 1 << 31):
            with pytest.raises(ProtectionError):
                db.add_user("bob", user=number)
        for group in (ADMINISTRATORS, ANYUSER):
            with pytest.raises(ProtectionError):
                db.remove(db.id_of(group) or 0)
        for text in ("", "\0", "a\0b"):
            with pytest.raises(ProtectionError):
                password_key(text)
        assert password_key("a-very-long-password") == b"a-very-l"
        with pytest.raises(ProtectionError):
            db.set_key(99, b"12345678")
        db.set_key(7, b"12345678")
        assert db.key_of(7) == b"12345678"
        db.close_account(7)
        assert db.key_of(7) is None
        assert db.has_key(7)


async def set_acl(client: Client, fid: Fid, text: bytes, status: Status | None = None) -> int:
    status = status or await client.status(fid)
    request = calls.SetAcl(fid=fid, acl=text, status=status, store_id=client.store_id())
    code, reply = await client.ask_code(request)
    assert code or not (reply.promised or reply.status.callback)
    return code


async def people(realm: Realm, *names: str) -> list[int]:
    return [realm.add_user(name, administrator=name == "admin") for name in names]


async def test_a_list_is_set_and_read_back_as_it_was(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        users = await people(realm, "admin", "ann", "bob", "carl")
        admin, reader = await realm.client(nursery, users[0]), await realm.client(nursery)
        before = await reader.status(realm.root)
        positive = ((ANYUSER, 9), ("ann", 31), (ADMINISTRATORS, 127), ("carl", 0xFFFF))
        wanted = AccessList(positive, (("bob", 8), ("carl", 2), ("ann", 1)))
        assert await set_acl(admin, realm.root, wanted.format()) == 0
        assert reader.broken == [realm.root]
        after = await reader.status(realm.root)
        assert after.vv.versions[0] == before.vv.versions[0] + 1
        assert after.data_version == before.data_version
        assert after.author == users[0]
        assert after.vv.cop2_pending
        reply = await reader.ask(calls.GetAcl(fid=realm.root))
        assert reply.acl == wanted.format()
        ann = await realm.client(nursery, users[1])
        assert (await ann.status(realm.root)).my_rights == 31, "what everybody has, nobody can be denied"
        carl = await realm.client(nursery, users[3])
        assert (await carl.status(realm.root)).my_rights == 0xFFFD


async def test_lists_that_are_refused(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        users = await people(realm, "admin", "ann")
        admin, ann = await realm.client(nursery, users[0]), await realm.client(nursery, users[1])
        good = AccessList(((ADMINISTRATORS, ALL),)).format()
        many = "21\n0\n" + "ann\t1\n" * 21
        for text, code in [
            (b"", Code.EINVAL),
            (b"1\n0\n\0", Code.EINVAL),
            (b"x\n0\n\0", Code.EINVAL),
            (b"1\n0\nann\tall\n\0", Code.EINVAL),
            (many.encode() + b"\0", Code.E2BIG),
            (b"1\n0\nnobody\t1\n\0", Code.ENOENT),
            (b"1\n0\n%d\t1\n\0" % users[1], Code.ENOENT),
        ]:
            assert await set_acl(admin, realm.root, text) == code, text
        assert await set_acl(ann, realm.root, good) == Code.EACCES
        stale = await admin.status(realm.root)
        assert await set_acl(admin, realm.root, good) == 0
        assert await set_acl(admin, realm.root, good, stale) == Code.EINCOMPATIBLE
        realm.set_root_acl(0, (users[1], ALL))
        file = await ann.make_file(b"f", b"")
        assert await set_acl(ann, file, good) == Code.ENOTDIR
        assert (await ann.ask_code(calls.GetAcl(fid=file)))[0] == Code.ENOTDIR


async def test_owners_always_may(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        users = await people(realm, "ann", "bob")
        ann, bob = [await realm.client(nursery, user) for user in users]
        nobody = await realm.client(nursery)
        everybody = realm.store.protection.id_of(ANYUSER)
        assert everybody is not None
        realm.set_root_acl(ALL & ~int(Rights.ADMINISTER))
        directory = await ann.make_directory(b"d")
        anonymous = await nobody.make_directory(b"e")
        text = AccessList((("ann", 9),)).format()
        assert await set_acl(bob, directory, text) == Code.EACCES
        assert await set_acl(ann, directory, text) == 0
        assert await set_acl(ann, directory, AccessList((("ann", ALL),)).format()) == 0
        assert await set_acl(nobody, anonymous, text) == Code.EACCES, "nobody owns what nobody made"


async def test_new_directories_take_their_parents_list(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        (ann,) = await people(realm, "ann")
        client = await realm.client(nursery, ann)
        realm.set_root_acl(9, (ann, ALL), negative=((ann, 32),))
        directory = await client.make_directory(b"d")
        lists = [(await client.ask(calls.GetAcl(fid=fid))).acl for fid in (realm.root, directory)]
        assert lists[0] == lists[1]


async def test_removed_people_stay_in_lists_as_numbers(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        (ann,) = await people(realm, "ann")
        client = await realm.client(nursery)
        realm.set_root_acl(9, (ann, 31))
        realm.store.protection.remove(ann)
        assert b"%d\t31\n" % ann in (await client.ask(calls.GetAcl(fid=realm.root))).acl


async def test_by_the_replicas_id_data_versions_count(tmp_path: Path, autojump_clock: MockClock) -> None:
    import dataclasses

    async with serving(tmp_path / "data") as (realm, nursery):
        (user,) = await people(realm, "admin")
        admin = await realm.client(nursery, user)
        replica = realm.root.in_volume(realm.store.volumes.all()[0].id)
        status = await admin.status(replica)
        other = dataclasses.replace(status, vv=status.vv.raised([3]))
        text = AccessList(((ANYUSER, 9),)).format()
        assert await set_acl(admin, replica, text, other) == 0
        wrong = dataclasses.replace(status, data_version=status.data_version + 1)
        assert await set_acl(admin, replica, text, wrong) == Code.EINCOMPATIBLE
