"""The transport: packets, marshalling, the secure layer, calls and bulk transfer."""
