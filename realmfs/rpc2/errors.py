"""What can go wrong in the transport."""


class BadPacket(ValueError):  # noqa: N818  # a kind of packet, as h11 has events
    """Bytes that are not what they claim to be: the only exception that untrusted bytes may raise."""
