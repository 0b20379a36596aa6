"""Changing the key that tokens are sealed with: nobody is logged out by it, unless that is what is wanted."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from realmfs.cli.admin import command as admin
from realmfs.server.database import StoreError
from realmfs.server.keys import SPREAD, former_key, good_until, keys_at
from realmfs.server.store import ServerStore
from realmfs.server.volumes import ServerAddress
from realmfs.vice.tokens import LIFETIME, BadToken, TokenKey, verify
from tests.t2b_server.test_commands import run_admin

NOW = 2_000_000_000.0
OLD, NEW = b"old key.", b"new key."


@pytest.mark.parametrize("alone", [True, False])
def test_every_token_is_good_until_its_end_wherever_it_is_shown(alone: bool) -> None:
    former = former_key(OLD, NOW, alone=alone, revoke=False)
    before: tuple[object, object] = (OLD, None)
    after: tuple[object, object] = (NEW, former)
    for issued in (NOW - 1, NOW, NOW + SPREAD / 2, NOW + SPREAD, NOW + 3600):
        minter = before if issued < NOW else after
        key = TokenKey(keys_at(*minter, issued)[0])
        token = key.mint(1001, int(issued), handshake_key=b"hndshake", iv=bytes(16))
        ends = int(issued) + LIFETIME
        knows_by = NOW if alone else NOW + SPREAD - 1  # when the last server has heard of the change
        for shown in (issued, NOW + SPREAD, ends - 1):
            opener = after if shown >= knows_by else before
            if shown >= issued:
                keys = [TokenKey(one) for one in keys_at(*opener, shown)]
                assert verify(token.secret, keys, shown).vice_id == 1001, (issued, shown)
    assert keys_at(*after, good_until(former)) == [NEW], "and then it is gone"
    assert good_until(former) <= NOW + SPREAD + LIFETIME


def test_logins_can_be_ended_at_once() -> None:
    token = TokenKey(OLD).mint(1001, int(NOW), handshake_key=b"hndshake", iv=bytes(16))
    keys = keys_at(NEW, former_key(OLD, NOW, alone=True, revoke=True), NOW)
    with pytest.raises(BadToken):
        verify(token.secret, [TokenKey(one) for one in keys], NOW)


def test_a_store_changes_its_key_once_a_day_or_by_force(tmp_path: Path) -> None:
    with ServerStore.create(tmp_path / "data", "r.test", "127.0.0.1") as store:
        (first,) = store.token_keys(NOW)
        until = store.change_token_key(now=NOW)
        assert until == NOW + LIFETIME
        new, old = store.token_keys(NOW)
        assert old == first != new
        with pytest.raises(StoreError, match="or revoke"):
            store.change_token_key(now=until - 1)
        assert store.token_keys(until) == [new]
        store.note_server(ServerAddress(2, "127.0.0.2", 2432, 1))
        assert store.change_token_key(now=until) == until + SPREAD + LIFETIME
        assert store.token_keys(until)[0] == new, "all servers hear of the newest first"
        assert store.token_keys(until + SPREAD)[1] == new
        store.change_token_key(now=until + 1, revoke=True)
        assert len(store.token_keys(until + 1)) == 1


def test_the_command_changes_it_and_shows_no_key(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with ServerStore.create(data, "r.test", "127.0.0.1") as store:
        before = store.token_keys()
    assert "present key" in run_admin(data, "keys", "show")
    said = run_admin(data, "keys", "rotate")
    shown = run_admin(data, "keys", "show")
    assert "hold until" in said
    assert "hold until" in shown
    with ServerStore.open(data) as store:
        assert store.token_keys()[1:] == before
    refused = CliRunner().invoke(admin, ["keys", "rotate", "--data", str(data)])
    assert refused.exit_code == 1
    assert "revoke" in refused.output
    assert "must log in again" in run_admin(data, "keys", "rotate", "--revoke")
    with ServerStore.open(data) as store:
        assert len(store.token_keys()) == 1
