"""Transfers with peers that have the habits of the reference (sftp.md §8): ours must make up for them.

The reference's client resends only for an ACK that advances or for START; its sink never answers a duplicate;
its server sends one batch for each ACK, and a duplicate with ACKME for each that does not advance. Each is
modelled here by a subclass of our own machine, which then plays the reference's part.
"""

import pytest
import trio

import realmfs.rpc2.call
import realmfs.rpc2.serve
from realmfs.rpc2.parameters import SftpParameters
from realmfs.rpc2.sftp import REFERENCE_PARAMETERS
from realmfs.rpc2.sftp_sink import SinkTransfer
from realmfs.rpc2.sftp_source import SourceTransfer
from realmfs.rpc2.transfer import BytesSink, BytesSource
from tests.fakenet import FakeNetwork
from tests.t2_rpc2.world import CLIENT, FETCH, STORE, number, pattern, world

pytestmark = pytest.mark.usefixtures("autojump_clock")


class ClientSource(SourceTransfer):
    """A reference client storing: one batch per advance, no timer, deaf to ACKs that do not advance."""

    def receive_ack(self, words: tuple[int, ...], now: float) -> None:
        if words[8] > self._acked:
            super().receive_ack(words, now)

    def end_of_burst(self, now: float) -> None:
        super().end_of_burst(now)
        self.deadline = float("inf")

    def _arm(self, now: float) -> None:
        self.deadline = float("inf")

    def _pump(self, now: float) -> None:
        assert self._parameters is not None
        if self._bodies and self._is_old(0, now):
            self._resend([0], now)
        eight = SftpParameters(len(self._bodies) + 8, 8, 8, 1084) if len(self._bodies) <= 24 else None
        if eight is not None:
            self._parameters, kept = eight, self._parameters
            super()._pump(now)
            self._parameters = kept


class ClientSink(SinkTransfer):
    """A reference client fetching: acknowledges when asked, never a duplicate."""

    def _duplicate(self, flags: int, now: float) -> None:
        """Say nothing."""

    def _hold(self, number: int, body: bytes, se_flags: int, now: float) -> None:
        self._next_hole_ack = float("inf")  # a hole is no reason
        super()._hold(number, body, se_flags, now)


class ServerSource(SourceTransfer):
    """A reference server: every ACK that does not advance provokes a duplicate that asks for another."""

    def receive_ack(self, words: tuple[int, ...], now: float) -> None:
        before = self._acked
        super().receive_ack(words, now)
        if self._bodies and words[8] == before:
            self._resend([0], now)


class BatchSource(SourceTransfer):
    """A reference server sending: eight packets for each ACK that advances, into a window of 32.

    Any other ACK, and one for which the window has no room, makes it repeat its first packet.
    """

    def receive_ack(self, words: tuple[int, ...], now: float) -> None:
        before = self._acked
        super().receive_ack(words, now)
        if self._acked > before and len(self._bodies) <= 24:
            self._pump(now)
        elif self._bodies:
            self._resend([0], now)

    def end_of_burst(self, now: float) -> None:
        """Nothing waits for that here."""

    def _pump(self, now: float) -> None:
        if not self._all_read:
            self._send_new(self._read(8, now), 8, now)
        self._arm(now)


@pytest.mark.parametrize("lost", [1, 9, 40, 41, 100, 145])
async def test_a_packet_lost_in_a_store_by_the_reference(monkeypatch: pytest.MonkeyPatch, lost: int) -> None:
    monkeypatch.setattr(realmfs.rpc2.call, "SourceTransfer", ClientSource)
    size = 145 * 1378
    async with world(client_sftp=REFERENCE_PARAMETERS) as w:
        connection = await w.bind()
        data_packets = 0

        def tap(datagram: bytes, sender: tuple[str, int], receiver: tuple[str, int]) -> bool:
            nonlocal data_packets
            data_packets += sender == CLIENT and len(datagram) > 1000
            return not (sender == CLIENT and len(datagram) > 1000 and data_packets == lost)

        w.net.tap = tap
        start = trio.current_time()
        await connection.call(STORE, source=BytesSource(pattern(size)))
        assert w.desk.stored == [pattern(size)]
        assert trio.current_time() - start < 1.5
        assert data_packets > lost


@pytest.mark.parametrize("seed", range(3))
async def test_stores_by_the_reference_over_a_lossy_network(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    print(f"seed {seed}")
    monkeypatch.setattr(realmfs.rpc2.call, "SourceTransfer", ClientSource)
    async with world(FakeNetwork(seed=seed, latency=0.001, loss=0.1), client_sftp=REFERENCE_PARAMETERS) as w:
        connection = await w.bind()
        await connection.call(STORE, source=BytesSource(pattern(200_000)))
        assert w.desk.stored == [pattern(200_000)]
        assert w.net.counters["sent"] < 1200


@pytest.mark.parametrize("seed", range(3))
async def test_fetches_by_a_sink_that_ignores_duplicates(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    print(f"seed {seed}")
    monkeypatch.setattr(realmfs.rpc2.call, "SinkTransfer", ClientSink)
    net = FakeNetwork(seed=seed, latency=0.001)
    async with world(net, client_sftp=REFERENCE_PARAMETERS) as w:
        connection = await w.bind()
        net.tap = lambda datagram, sender, receiver: sender == CLIENT or net.random.random() > 0.1
        sink = BytesSink()
        await connection.call(FETCH, number(200_000), sink=sink)
        assert sink.data == pattern(200_000)


@pytest.mark.parametrize("latency", [0.001, 0.02])
async def test_no_storm_with_a_source_that_answers_every_ack(
    monkeypatch: pytest.MonkeyPatch, latency: float
) -> None:
    monkeypatch.setattr(realmfs.rpc2.serve, "SourceTransfer", ServerSource)
    size = 1000 * 1378
    async with world(FakeNetwork(seed=1, latency=latency, jitter=latency, loss=0.01, duplicates=0.01)) as w:
        connection = await w.bind()
        await connection.call(FETCH, number(size), sink=BytesSink())
        assert w.net.counters["sent"] < 2200  # twice as many without the limit on answers to duplicates


@pytest.mark.parametrize("latency", [0.0005, 0.02])
async def test_most_of_a_reference_servers_window_is_used(
    monkeypatch: pytest.MonkeyPatch, latency: float
) -> None:
    monkeypatch.setattr(realmfs.rpc2.serve, "SourceTransfer", BatchSource)
    async with world(FakeNetwork(latency=latency)) as w:
        connection = await w.bind()
        sink = BytesSink()
        start = trio.current_time()
        await connection.call(FETCH, number(960 * 1378), sink=sink)
        assert sink.data == pattern(960 * 1378)
        # Three batches of eight in each round trip, not one; and never more than the window has room for.
        assert trio.current_time() - start < 2 * latency * (960 / 24 + 4)
        assert w.server.statistics().get("data_resent", 0) == 0
