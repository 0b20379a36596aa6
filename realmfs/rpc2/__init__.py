"""The transport: packets, marshalling, the secure layer, calls and bulk transfer.

To use it: `endpoint` (Endpoint, Connection, udp_transport), `tunnel` and `tls` (the same through TLS),
`service` (the faces of services and transports, credentials, replies), `transfer` (sources and sinks),
`marshal`, `errors`, `codes`, `parameters`.

To read it, from the ground up: `header` and `handshake` (what packets look like), `kdf` and `secure` (how
they are protected), `timers`, `estimate` and `hub` (what connections share), `link` and `filelink` (what
both ends of one have in common), `bind` and `call` (the client), `reception`, `accept` and `serve` (the
server), `sftp`, `sftp_source` and `sftp_sink` (files), `core` (all of it without input and output), `frames`
(packets on a stream). `udp`, `tunnel`, `endpoint` and `handlers` are the only ones that know trio.
"""
