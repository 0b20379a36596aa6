"""From a realm's name to a working group of servers."""
