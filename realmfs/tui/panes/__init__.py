"""The panes, one a module."""
