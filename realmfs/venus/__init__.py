"""The cache manager: `venus.Venus` is the whole, `face` what others may call."""
