"""The cache manager."""
