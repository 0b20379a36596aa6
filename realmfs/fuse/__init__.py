"""The kernel's side: its FUSE protocol, spoken over `/dev/fuse`, and its operations over the cache manager.

wire ......... the layouts of messages; pure
device ....... mounting, reading requests, writing answers and notices
workers ...... who serves the requests, errors, deadlines
operations ... one request, one call to the cache manager
notify ....... telling the kernel what to forget, without waiting
session ...... one mount from its making to its end
mountpoint, mounts   what can go wrong on this machine, and the kernel's table of mounts
"""
