"""The kernel's side: pyfuse3 operations over the cache manager.

`mountpoint` and `mounts` know nothing of pyfuse3, so that the rest of the program can say what is wrong
where it is missing.
"""
