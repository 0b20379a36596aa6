"""Work in the background, up to the very end."""

from typing import Any, cast

import trio

from realmfs.realms.context import Context
from realmfs.realms.settings import RealmSettings


async def test_nothing_is_begun_in_the_background_once_we_stop() -> None:
    """What is cancelled at the end may let go of something by background work: that must not raise."""
    context = Context(cast("Any", None), RealmSettings(), cast("Any", None))
    done: list[str] = []

    async def work() -> None:
        done.append("work")
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        context.nursery = nursery
        assert context.background("key", work)
    assert done == ["work"]
    assert not context.background("key", work)
    assert done == ["work"]
