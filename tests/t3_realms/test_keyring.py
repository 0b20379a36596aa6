"""Tokens in a keyring: kept for who asks, found again, removed at the end; one that fails is told."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

keyring = pytest.importorskip("keyring")

from realmfs.realms.keyring import KeyringError  # noqa: E402  # what needs the package comes after the skip
from realmfs.realms.tokens import Held, News, Tokens  # noqa: E402
from realmfs.vice.tokens import TokenKey  # noqa: E402
from tests.keyrings import FileKeyring, PlainKeyring  # noqa: E402


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileKeyring]:
    monkeypatch.setenv("REALMFS_TEST_KEYRING", str(tmp_path / "keyring"))
    before = keyring.get_keyring()
    made = FileKeyring()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


def held(uid: int = 1000, lifetime: int = 90000) -> Held:
    token = TokenKey(b"tokenkey").mint(
        501, int(time.time()), handshake_key=b"hndshake", iv=bytes(16), lifetime=lifetime
    )
    return Held("r.test", uid, "ålice", token)


async def restarted(nursery: trio.Nursery, directory: Path, **options: bool) -> Tokens:
    tokens = Tokens(directory, **options)
    nursery.start_soon(tokens.run_keyring)
    return tokens


async def until_empty(backend: FileKeyring) -> None:
    with trio.fail_after(5):
        while backend.entries():  # noqa: ASYNC110  # a thread removes them
            await trio.sleep(0.01)


@pytest.mark.parametrize("all_of_them", [False, True])
async def test_a_kept_token_is_found_again_and_removed_at_logout(
    tmp_path: Path, backend: FileKeyring, nursery: trio.Nursery, all_of_them: bool
) -> None:
    options = {"keep": all_of_them, "in_keyring": all_of_them}
    first = await restarted(nursery, tmp_path / "tokens", **options)
    first.put(held())
    await first.keep_in_keyring(held())
    assert list(backend.entries()) == ["realmfs 1000@r.test"]
    on_disk = b"".join(path.read_bytes() for path in (tmp_path / "tokens").iterdir())
    assert on_disk == b"1000@r.test\n", "the index has no secret"
    second = Tokens(tmp_path / "tokens", **options)
    taken = trio.Event()
    second.listener = lambda one, news: taken.set()
    nursery.start_soon(second.run_keyring)
    with trio.fail_after(5):
        await taken.wait()
    found = second.get("r.test", 1000)
    assert found is not None
    assert (found.user, found.token.clear.vice_id) == ("ålice", 501)
    second.drop("r.test", 1000)
    await until_empty(backend)
    assert not (tmp_path / "tokens" / "keyring").exists()


async def test_a_login_since_wins_over_what_was_kept(
    tmp_path: Path, backend: FileKeyring, nursery: trio.Nursery
) -> None:
    first = Tokens(tmp_path / "tokens")
    await first.keep_in_keyring(held())
    second = Tokens(tmp_path / "tokens")
    mine = held()
    second.put(mine)
    news: list[News] = []
    second.listener = lambda one, what: news.append(what)
    nursery.start_soon(second.run_keyring)
    await trio.testing.wait_all_tasks_blocked(0.1)
    assert second.get("r.test", 1000) is mine
    assert news == []


async def test_what_has_ended_is_removed(tmp_path: Path, backend: FileKeyring, nursery: trio.Nursery) -> None:
    first = Tokens(tmp_path / "tokens")
    await first.keep_in_keyring(held(lifetime=30))
    tokens = await restarted(nursery, tmp_path / "tokens")
    await until_empty(backend)
    assert tokens.all() == []


@pytest.mark.logs("cannot be had|stays in the keyring|is no token")
async def test_a_keyring_that_fails_is_told(
    tmp_path: Path, backend: FileKeyring, nursery: trio.Nursery
) -> None:
    tokens = Tokens(tmp_path / "tokens")
    backend.path.mkdir()
    with pytest.raises(KeyringError, match="locked"):
        await tokens.keep_in_keyring(held())
    keyring.set_keyring(PlainKeyring())
    with pytest.raises(KeyringError, match="keeps secrets safe"):
        await tokens.keep_in_keyring(held())
    keyring.set_keyring(keyring.backends.fail.Keyring())
    with pytest.raises(KeyringError, match="keeps secrets safe"):
        await tokens.keep_in_keyring(held())
    keyring.set_keyring(backend)
    backend.path.rmdir()
    await tokens.keyring.keep("rubbish", "no token at all")
    await restarted(nursery, tmp_path / "tokens")
    await until_empty(backend)
