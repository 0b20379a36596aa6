"""The terminal user interface: Textual, a process of its own, knows the control socket and nothing below."""
