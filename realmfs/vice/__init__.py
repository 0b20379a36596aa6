"""The language spoken over the transport: value types, calls, directory pages, access lists, log records. Pure."""
