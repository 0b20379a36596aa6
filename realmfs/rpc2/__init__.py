"""The transport: packets, marshalling, the secure layer, calls and bulk transfer (protocol: RPC2, RPC2SEC, SFTP)."""
