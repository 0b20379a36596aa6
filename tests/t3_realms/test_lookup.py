"""realms.md §2: realms file, then SRV, then A; what is asked, what is kept, what "no" means."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.realms.lookup import (
    FILE_SERVICE,
    LOGIN_SERVICE,
    MAX_TTL,
    MIN_TTL,
    Lookup,
    NoAnswerError,
    RootServer,
    UnknownRealmError,
    in_order,
)
from tests.dnsserver import dns_server


def addresses(servers: tuple[RootServer, ...]) -> set[tuple[str, int]]:
    return {server.address for server in servers}


async def test_srv_with_all_addresses_of_each_target() -> None:
    async with dns_server() as dns:
        dns.srv("r.test", (0, 1, 2432, "s1.r.test"), (1, 5, 12432, "s2.r.test"), ttl=600)
        dns.a("s1.r.test", "10.0.0.1", "10.0.1.1", ttl=300)
        dns.a("s2.r.test", "10.0.0.2", ttl=900)
        dns.a("r.test", "10.0.0.99")
        answer = await Lookup(None, dns.address).find("r.test", FILE_SERVICE)
        assert set(answer.servers) == {
            RootServer("s1.r.test", ("10.0.0.1", 2432), 0, 1),
            RootServer("s1.r.test", ("10.0.1.1", 2432), 0, 1),
            RootServer("s2.r.test", ("10.0.0.2", 12432), 1, 5),
        }
        assert answer.ttl == 300
        assert ("r.test", "A") not in dns.questions
        assert all(kind != "AAAA" for _, kind in dns.questions)


async def test_the_login_service_has_its_own_record() -> None:
    async with dns_server() as dns:
        dns.srv("r.test", (0, 0, 2432, "s1.r.test"))
        dns.srv("r.test", (0, 0, 370, "auth.r.test"), service="codaauth2")
        dns.a("auth.r.test", "10.0.0.7")
        answer = await Lookup(None, dns.address).find("r.test", LOGIN_SERVICE)
        assert addresses(answer.servers) == {("10.0.0.7", 370)}


async def test_a_lone_dot_is_a_decided_no() -> None:
    async with dns_server() as dns:
        dns.srv("r.test", (0, 0, 0, "."))
        dns.a("r.test", "10.0.0.1")
        with pytest.raises(UnknownRealmError):
            await Lookup(None, dns.address).find("r.test", FILE_SERVICE)
        assert dns.questions == [("_codasrv._udp.r.test", "SRV")]


@pytest.mark.parametrize("dangling", [False, True])
async def test_fall_back_to_the_realms_own_address(dangling: bool) -> None:
    async with dns_server() as dns:
        if dangling:
            dns.srv("r.test", (0, 0, 12432, "gone.r.test"))
        dns.a("r.test", "10.0.0.1", "10.0.0.2", ttl=5)
        answer = await Lookup(None, dns.address).find("r.test", FILE_SERVICE)
        assert addresses(answer.servers) == {("10.0.0.1", 2432), ("10.0.0.2", 2432)}
        assert answer.ttl == MIN_TTL


async def test_only_ipv6_is_no_realm() -> None:
    async with dns_server() as dns:
        dns.aaaa("r.test", "fd00::1")
        with pytest.raises(UnknownRealmError):
            await Lookup(None, dns.address).find("r.test", FILE_SERVICE)


async def test_silence_is_not_absence() -> None:
    async with dns_server() as dns:
        dns.silent = True
        with pytest.raises(NoAnswerError):
            await Lookup(None, dns.address).find("r.test", FILE_SERVICE, patience=0.3)


@pytest.mark.parametrize("name", ["home", "autorun.inf", ".git", "a..b", "localhost"])
async def test_no_question_for_what_is_no_realm(name: str) -> None:
    async with dns_server() as dns:
        with pytest.raises(UnknownRealmError):
            await Lookup(None, dns.address).find(name, FILE_SERVICE)
        assert not dns.questions


async def test_the_realms_file_goes_first(tmp_path: Path) -> None:
    file = tmp_path / "realms"
    file.write_text("home s1.r.test 10.0.0.5:12432\nforbidden.test\nlost.test gone.r.test\n")
    async with dns_server() as dns:
        dns.a("s1.r.test", "10.0.0.1")
        dns.a("forbidden.test", "10.0.0.3")
        dns.a("lost.test", "10.0.0.4")
        lookup = Lookup(file, dns.address)
        answer = await lookup.find("home", FILE_SERVICE)
        assert addresses(answer.servers) == {("10.0.0.1", 2432), ("10.0.0.5", 12432)}
        assert dns.questions == [("s1.r.test", "A")]
        with pytest.raises(UnknownRealmError):
            await lookup.find("forbidden.test", FILE_SERVICE)
        with pytest.raises(NoAnswerError):
            await lookup.find("lost.test", FILE_SERVICE)
        login = await lookup.find("home", LOGIN_SERVICE)
        assert addresses(login.servers) == {("10.0.0.1", 370), ("10.0.0.5", 370), ("10.0.0.5", 12433)}
        file.write_text("home 10.0.0.6\n")  # read anew at each look-up
        assert addresses((await lookup.find("home", FILE_SERVICE)).servers) == {("10.0.0.6", 2432)}


SERVERS = st.lists(
    st.builds(
        RootServer,
        st.text("ab", max_size=3),
        st.tuples(st.just("10.0.0.1"), st.integers(1, 9)),
        st.integers(0, 3),
        st.integers(0, 65535),
    )
)


@given(SERVERS, st.integers())
def test_order_keeps_all_and_obeys_priorities(servers: list[RootServer], seed: int) -> None:
    ordered = in_order(servers, random.Random(seed))
    assert Counter(ordered) == Counter(servers)
    assert [s.priority for s in ordered] == sorted(s.priority for s in servers)


def test_weights_count_with_one_added() -> None:
    servers = [RootServer("light", ("", 1), 0, 0), RootServer("heavy", ("", 1), 0, 3)]
    rng = random.Random(20261122)
    first = Counter(in_order(servers, rng)[0].name for _ in range(2000))
    assert 1500 < first["heavy"] < 1700  # 4 in 5
    assert MAX_TTL > MIN_TTL
