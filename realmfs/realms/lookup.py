"""From a realm's name to addresses: the realms file, DNS SRV, DNS A, in this order (realms.md §2).

    forbidden in the file? ──► no such realm
    listed in the file?    ──► A record of each host
    no host name           ──► no such realm          (no question leaves the machine)
    SRV _codasrv._udp.R.   ──► target "." : no such realm; else the A records of all targets
    nothing from SRV       ──► A records of R itself, the service's own port

Only IPv4, as in the protocol. Every A record of a target is kept (the reference loses all but one). Three
outcomes, and callers treat them differently: an `Answer`; `UnknownRealmError`, DNS or the file says no;
`NoAnswerError`, nobody said anything.
"""

import ipaddress
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver
import trio
from dns._trio_backend import Backend

from realmfs.realms import realmsfile
from realmfs.realms.names import is_host_name

log = logging.getLogger(__name__)

MIN_TTL, MAX_TTL = 60.0, 86400.0
FILE_TTL = 60.0  # the file is read again so often
MAX_TARGETS = 16
QUESTION_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Service:
    """A service of a realm: its name in SRV records and its standard port (realms.md §2 "Ports")."""

    name: str
    port: int


FILE_SERVICE = Service("codasrv", 2432)
LOGIN_SERVICE = Service("codaauth2", 370)


@dataclass(frozen=True, slots=True)
class RootServer:
    """One address of a realm. `name` is the host's name as the file or the SRV record gave it."""

    name: str
    address: tuple[str, int]
    priority: int = 0
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """The servers of a realm, never none of them, and for how many seconds to believe it."""

    servers: tuple[RootServer, ...]
    ttl: float


class UnknownRealmError(Exception):
    """The realms file or DNS says that there is no such realm, or the name can be none."""


class NoAnswerError(Exception):
    """Nobody could be asked: no name server, no network, no reply in time."""


def in_order(servers: Sequence[RootServer], rng: random.Random) -> list[RootServer]:
    """Shuffle servers as realms.md §2 "Order".

    Lowest priority first, within one by weight (each counts weight + 1).
    """
    return sorted(servers, key=lambda s: (s.priority, rng.expovariate(s.weight + 1.0)))


class Lookup:
    """Answers questions for realms. `name_server` None: those of the system's resolver configuration."""

    def __init__(self, realms_file: Path | None, name_server: tuple[str, int] | None) -> None:
        self._realms_file = realms_file
        self._name_server = name_server

    async def find(self, realm: str, service: Service, patience: float = 10.0) -> Answer:
        """Look a folded realm name up.

        Raises UnknownRealmError or NoAnswerError, within `patience` seconds.
        """
        listed = realmsfile.find(realmsfile.read(self._realms_file), realm)
        if listed is not None and not listed:
            raise UnknownRealmError(f"{realm} is forbidden by the realms file")
        if listed is None and not is_host_name(realm):
            raise UnknownRealmError(f"{realm} is no host name")
        with trio.move_on_after(patience):
            if listed is not None:
                return await self._from_file(realm, service, listed)
            return await self._from_dns(realm, service)
        raise NoAnswerError(f"no answer about {realm} within {patience:g} s")

    async def _from_file(
        self, realm: str, service: Service, listed: Sequence[realmsfile.FileServer]
    ) -> Answer:
        hosts = [host for entry in listed for host in _hosts(entry, service)]
        found, ttl = await self._addresses(hosts)
        if not found:
            raise NoAnswerError(f"no server of {realm} in the realms file has an address")
        return Answer(found, min(ttl, FILE_TTL))

    async def _from_dns(self, realm: str, service: Service) -> Answer:
        targets, ttl = await self._srv(realm, service)
        if targets:
            found, address_ttl = await self._addresses(targets)
            if found:
                return Answer(found, min(ttl, address_ttl))
        answer = await self._ask(realm + ".", "A")
        if answer is None:
            raise UnknownRealmError(f"DNS knows no server of {realm}")
        servers = tuple(RootServer(realm, (record.address, service.port)) for record in answer)
        return Answer(servers, _bounded(answer.rrset.ttl if answer.rrset else 0))

    async def _srv(self, realm: str, service: Service) -> tuple[list[RootServer], float]:
        """Return the targets of the SRV record, addresses still empty.

        A lone "." means: decidedly no service.
        """
        try:
            answer = await self._ask(f"_{service.name}._udp.{realm}.", "SRV")
        except NoAnswerError as silence:  # some forwarders swallow SRV questions; the realm's own name may do
            log.info("%s", silence)
            return [], MIN_TTL
        if answer is None:
            return [], MIN_TTL
        records = [record for record in answer if record.target != dns.name.root]
        if not records:
            raise UnknownRealmError(f"DNS says that {realm} offers no {service.name}")
        targets = [
            RootServer(r.target.to_text(omit_final_dot=True), ("", r.port), r.priority, r.weight)
            for r in records[:MAX_TARGETS]
        ]
        return targets, _bounded(answer.rrset.ttl if answer.rrset else 0)

    async def _addresses(self, hosts: Sequence[RootServer]) -> tuple[tuple[RootServer, ...], float]:
        """Resolve all hosts at once; a host without address is left out."""
        resolved: list[tuple[list[str], float]] = [([], MAX_TTL) for _ in hosts]

        async def resolve(i: int, host: str) -> None:
            resolved[i] = await self._host(host)

        async with trio.open_nursery() as nursery:
            for i, host in enumerate(hosts):
                nursery.start_soon(resolve, i, host.name)
        servers = tuple(
            replace(host, address=(address, host.address[1]))
            for host, (addresses, _) in zip(hosts, resolved, strict=True)
            for address in addresses
        )
        return servers, min((ttl for addresses, ttl in resolved if addresses), default=MIN_TTL)

    async def _host(self, host: str) -> tuple[list[str], float]:
        try:
            return [str(ipaddress.IPv4Address(host))], MAX_TTL
        except ValueError:
            pass
        try:
            answer = await self._ask(host + ".", "A")
        except NoAnswerError as silence:
            log.info("%s", silence)
            return [], MIN_TTL
        if answer is None:
            return [], MIN_TTL
        return [record.address for record in answer], _bounded(answer.rrset.ttl if answer.rrset else 0)

    async def _ask(self, name: str, kind: str) -> dns.resolver.Answer | None:
        """Ask one absolute question. None: the name or the record does not exist. Raises NoAnswerError."""
        try:
            resolver = self._resolver()
            return await resolver.resolve(
                name, kind, search=False, lifetime=QUESTION_SECONDS, backend=Backend()
            )
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return None
        except (dns.exception.DNSException, OSError) as error:
            raise NoAnswerError(f"DNS, {kind} {name}: {error}") from error

    def _resolver(self) -> dns.asyncresolver.Resolver:
        # Made anew each time: the system's configuration changes with the network.
        if self._name_server is None:
            return dns.asyncresolver.Resolver()
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = [self._name_server[0]]
        resolver.port = self._name_server[1]
        return resolver


def _hosts(entry: realmsfile.FileServer, service: Service) -> list[RootServer]:
    """Return where a line of the realms file says that a service is, addresses still empty.

    A port in our file is that of the file service. Logins have their own, except that a server of ours which
    may not use that takes the port after the file service's.
    """
    if service is FILE_SERVICE:
        return [RootServer(entry.host, ("", entry.port or service.port))]
    standard = RootServer(entry.host, ("", service.port))
    if entry.port is None:
        return [standard]
    return [standard, RootServer(entry.host, ("", min(entry.port + 1, 65535)), priority=1)]


def _bounded(ttl: float) -> float:
    return min(max(float(ttl), MIN_TTL), MAX_TTL)
