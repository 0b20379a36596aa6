"""The kernel's side: pyfuse3 operations over the cache manager."""
