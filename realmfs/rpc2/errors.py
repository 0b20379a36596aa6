"""What can go wrong in the transport."""

from realmfs.rpc2.codes import Rpc2Code


class BadPacket(ValueError):  # noqa: N818  # a kind of packet, as h11 has events
    """Bytes that are not what they claim to be: the only exception that untrusted bytes may raise."""


class RpcError(Exception):
    """A bind, call or transfer failed in the transport itself; `code` is an RPC2 number (rpc2.md §13)."""

    def __init__(self, code: int, text: str = "") -> None:
        self.code = code
        super().__init__(text)

    def __str__(self) -> str:
        text = super().__str__()
        return f"{Rpc2Code.name_of(self.code)}: {text}" if text else Rpc2Code.name_of(self.code)


class WrongSecret(RpcError):  # noqa: N818  # what happened, in the user's words
    """No binding, but packets under another secret came: most likely a wrong password (auth.md §2.4)."""

    def __init__(self, text: str = "the server answers under another secret") -> None:
        super().__init__(Rpc2Code.NOBINDING, text)


class StaysBusy(RpcError):  # noqa: N818  # as above
    """No binding: the server is there, and had no time for us as long as we waited."""

    def __init__(self, text: str = "the server stays busy") -> None:
        super().__init__(Rpc2Code.NOBINDING, text)


class BrokenTunnel(RpcError):  # noqa: N818  # as above
    """A TLS tunnel could not be made, or has ended (sftp.md §15)."""

    def __init__(self, text: str) -> None:
        super().__init__(Rpc2Code.NOBINDING, text)

    def __str__(self) -> str:
        return str(self.args[0])


class BadCertificate(BrokenTunnel):
    """The server does not prove that it is who it should be; going on without TLS would be no better."""
