"""A user-space client for the Coda distributed file system."""

__version__ = "0.1.0"
