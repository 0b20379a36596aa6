"""The daemon's other door: a Unix socket that speaks JSON-RPC 2.0, one message a line.

`messages` are the typed parameters and results, `protocol` their way to a line and back, `client` the
caller's side (standard library only, so that commands start quickly), `server` the daemon's, and `service`
the methods.
"""
