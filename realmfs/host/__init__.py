"""The machine around us: networks, sleep, power."""
