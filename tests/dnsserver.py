"""A small DNS server on loopback for tests: the questions it was asked are part of what a test can check."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import trio


class DnsServer:
    """Answers A and SRV questions from `zone`.

    Unknown names get NXDOMAIN. `silent` makes it swallow everything.
    """

    def __init__(self) -> None:
        self.zone: dict[tuple[str, str], dns.rrset.RRset] = {}
        self.questions: list[tuple[str, str]] = []
        self.silent = False
        self.address = ("127.0.0.1", 0)

    def a(self, name: str, *addresses: str, ttl: int = 300) -> None:
        """Give a name A records. The name has no final dot."""
        self._set(name, "A", ttl, *addresses)

    def aaaa(self, name: str, *addresses: str) -> None:
        self._set(name, "AAAA", 300, *addresses)

    def srv(
        self, realm: str, *targets: tuple[int, int, int, str], service: str = "codasrv", ttl: int = 300
    ) -> None:
        """Give a realm SRV records: (priority, weight, port, target); the target "." means no service."""
        texts = [f"{p} {w} {port} {t if t == '.' else t + '.'}" for p, w, port, t in targets]
        self._set(f"_{service}._udp.{realm}", "SRV", ttl, *texts)

    def remove(self, name: str, kind: str) -> None:
        del self.zone[name, kind]

    def _set(self, name: str, kind: str, ttl: int, *texts: str) -> None:
        self.zone[name, kind] = dns.rrset.from_text(name + ".", ttl, "IN", kind, *texts)

    def reply(self, query: bytes) -> bytes:
        question = dns.message.from_wire(query)
        name = question.question[0].name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.question[0].rdtype)
        self.questions.append((name, kind))
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.RA
        records = self.zone.get((name, kind))
        if records is not None:
            answer.answer.append(records)
        elif not any(known == name for known, _ in self.zone):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer.to_wire()


@asynccontextmanager
async def dns_server() -> AsyncIterator[DnsServer]:
    """Run a DnsServer on a loopback port of its own (`.address`) for the duration of the block."""
    server = DnsServer()
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(server.address)
        server.address = sock.getsockname()

        async def answer() -> None:
            while True:
                query, peer = await sock.recvfrom(4096)
                if not server.silent:
                    await sock.sendto(server.reply(query), peer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            yield server
            nursery.cancel_scope.cancel()
