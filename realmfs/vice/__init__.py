"""The language spoken over the transport: values, calls, directory pages, access lists, log records."""
