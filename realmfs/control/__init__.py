"""The daemon's other door: a Unix socket that speaks JSON-RPC 2.0 lines."""
