"""Taking in what a sweep of near servers brings (realms/sweep.py): many objects in one transaction.

A sweep is detached work like a fetch of one object, known under the key ("sweep", number) of each of its
objects. Whoever wants one of them waits for the sweep, though not for long (`validity.SWEEP_PATIENCE`): what
a sweep does not bring, for whatever reason, is asked for in the ordinary way. So nothing here is an error
for anybody, and an answer that comes late is judged like any other (`Validator.absorb`).
"""

import logging
from collections.abc import Mapping, Sequence

from realmfs.realms.sweep import Found
from realmfs.venus.core import Core
from realmfs.venus.fetch import Fetcher
from realmfs.venus.node import Node, Promise
from realmfs.venus.validity import Validator
from realmfs.vice.errors import CodaError
from realmfs.vice.types import Fid

log = logging.getLogger(__name__)


class Sweeps:
    """Brings many small objects of one volume at once."""

    def __init__(self, core: Core, validator: Validator, fetcher: Fetcher) -> None:
        self._core = core
        self._validator = validator
        self._fetcher = fetcher

    async def status(self, nodes: Sequence[Node], uid: int) -> None:
        """Bring the status of objects of which nothing is known."""
        await self._sweep(nodes, uid, None)

    async def contents(self, nodes: Sequence[Node], uid: int) -> None:
        """Bring small files and directories, with their status."""
        await self._sweep(nodes, uid, self._core.settings.data_ahead_size)

    async def _sweep(self, nodes: Sequence[Node], uid: int, limit: int | None) -> None:
        core, volume = self._core, nodes[0].volume
        known = [node.status.length for node in nodes if node.status is not None]
        size = 0 if limit is None else sum(known) + limit * (len(known) < len(nodes))
        await core.room(objects=len(nodes), size=size)
        before = [(node, node.sample(), node.edition) for node in nodes]
        name = "GetAttr" if limit is None else "FetchPartial"
        with core.call(name, f"{nodes[0].label} [{len(nodes)}]"):
            found = await core.group(volume).sweep([node.fid for node in nodes], uid, limit)
        with core.cache.transaction():
            self._take_in(before, uid, found)

    def _take_in(
        self, before: Sequence[tuple[Node, Promise, int]], uid: int, found: Mapping[Fid, Found]
    ) -> None:
        for node, sample, edition in before:
            brought = found.get(node.fid)
            if brought is None:
                continue
            try:
                if brought.data is None:
                    self._validator.absorb(node, uid, brought.attributes, sample, edition)
                else:
                    self._fetcher.take_in_small(node, uid, brought, sample, edition)
            except CodaError as error:
                log.info("%s was swept up in vain: %s", node, error)
