"""Changes of the network, from the kernel (rtnetlink(7)): links, IPv4 addresses and routes that come or go.

What changed is not looked at: whoever listens asks its servers, which is the only question that counts. A
laptop that joins a network causes dozens of messages within a second, so they are gathered for a moment.
"""

import errno
import logging
import socket
from collections.abc import Callable

import trio

log = logging.getLogger(__name__)

SETTLE = 0.3
"""Seconds without a message after which a change counts as complete."""
_LONGEST = 2.0  # for messages that do not end
_LINK, _IPV4_ADDRESS, _IPV4_ROUTE = 0x1, 0x10, 0x40  # RTMGRP_*, linux/rtnetlink.h
_PIECE = 64 << 10


async def watch(changed: Callable[[], None]) -> None:
    """Call `changed` after each change of the network, for ever. Without netlink that is said in the log."""
    try:
        messages = trio.socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    except (AttributeError, OSError) as error:
        log.info("changes of the network are not noticed: %s", error)
        return
    with messages:
        try:
            await messages.bind((0, _LINK | _IPV4_ADDRESS | _IPV4_ROUTE))
            while True:
                await _message(messages)
                with trio.move_on_after(_LONGEST):
                    await _silence(messages)
                log.info("the network has changed")
                changed()
        except OSError as error:
            log.warning("changes of the network are not noticed any more: %s", error)


async def _silence(messages: trio.socket.SocketType) -> None:
    """Wait until nothing has come for a moment."""
    while True:
        with trio.move_on_after(SETTLE) as moment:
            await _message(messages)
        if moment.cancelled_caught:
            return


async def _message(messages: trio.socket.SocketType) -> None:
    """Wait for a message; more than the kernel could queue is one, too."""
    try:
        await messages.recv(_PIECE)
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
