"""Whom servers took local users for: remembered over restarts, forgotten on request, never too many."""

from pathlib import Path

import pytest

from realmfs.cache import identities
from realmfs.cache.cache import Cache
from realmfs.cache.limits import Limits

LIMITS = Limits(bytes=1 << 20, objects=100, log_records=100, reserve=0)


def test_they_last_over_a_restart_until_they_are_forgotten(tmp_path: Path) -> None:
    with Cache(tmp_path, LIMITS) as cache, cache.transaction():
        for realm, uid, vice_id in ((1, 1000, 501), (2, 1000, 601), (1, 1001, 502), (1, 1000, 503)):
            cache.identities.set(realm, uid, vice_id)
    with Cache(tmp_path, LIMITS) as cache:
        assert cache.identities.of_user(1000) == {1: 503, 2: 601}
        with cache.transaction():
            cache.identities.forget(1, 1000)
            cache.identities.forget(1, 4711)
    with Cache(tmp_path, LIMITS) as cache:
        assert cache.identities.get(1, 1000) is None
        assert (cache.identities.get(2, 1000), cache.identities.get(1, 1001)) == (601, 502)


def test_a_change_that_is_rolled_back_has_not_been(tmp_path: Path) -> None:
    with Cache(tmp_path, LIMITS) as cache:
        with cache.transaction():
            cache.identities.set(1, 1000, 501)
        with pytest.raises(KeyError):
            change_and_fail(cache)
        assert cache.identities.get(1, 1000) == 501
        assert cache.identities.get(1, 1001) is None


def change_and_fail(cache: Cache) -> None:
    with cache.transaction():
        cache.identities.set(1, 1000, 502)
        cache.identities.set(1, 1001, 503)
        cache.realms.get(4711)


def test_the_oldest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identities, "MOST", 3)
    with Cache(tmp_path, LIMITS) as cache, cache.transaction():
        for uid in (1, 2, 3, 1, 4):
            cache.identities.set(1, uid, 500 + uid)
    with Cache(tmp_path, LIMITS) as cache:
        assert [cache.identities.get(1, uid) for uid in (1, 2, 3, 4)] == [None, 502, 503, 504]
