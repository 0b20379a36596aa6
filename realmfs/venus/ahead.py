"""In which order a program goes through a directory, and what it will want next.

A Python client spends most of the time of a cold `ls -l` or `cat *` waiting for one round trip after the
other. Programs walk directories as they are listed (`ls`, `find`, `tar`) or by name (the shell's `*`); those
that put subdirectories on a stack take them in the reverse order. After three steps in one of these orders
the next entries are brought ahead, twice as many each time up to a limit. The limit also bounds what a wrong
guess costs.
"""

from collections.abc import Iterable, Sequence

STEPS_BEFORE = 2
CONFIDENT = 4  # steps that having listed a directory counts for
GAP = 4  # entries that may be passed over in a step: directories, or what the kernel still knew


class _Order:
    """One way through the names: where the program is, since how many steps, how far ahead we are."""

    __slots__ = ("ahead", "given", "last", "names", "places", "steps")

    def __init__(self, names: Sequence[bytes]) -> None:
        self.names = names
        self.places = {name: place for place, name in enumerate(names)}
        self.last = -1
        self.steps = 0
        self.ahead = 0
        self.given = 0

    def begin(self) -> None:
        """Be before the first name, and confident."""
        self.last, self.ahead, self.given, self.steps = -1, 0, 0, CONFIDENT

    def step(self, name: bytes) -> None:
        """Note where the program is."""
        place = self.places.get(name, self.last)
        if place == self.last:
            return
        if 0 < place - self.last <= GAP:
            self.steps += 1
        else:
            self.steps = self.given = 0
            self.ahead = place + 1
        self.last = place

    def window(self, limit: int) -> Sequence[bytes]:
        """Return the names to bring now; none before half of the last ones are used: they go in batches."""
        start = max(self.ahead, self.last + 1)
        if start - self.last - 1 > min(self.given, limit) // 2:
            return ()
        self.given = min(limit, 1 << min(self.steps, 16))
        self.ahead = self.last + 1 + self.given
        return self.names[start : self.ahead]


class Walk:
    """A program's way through one directory."""

    __slots__ = ("_orders",)

    def __init__(self, names: Iterable[bytes]) -> None:
        listed = list(names)
        by_name = sorted(listed)
        self._orders = (_Order(listed), _Order(by_name), _Order(listed[::-1]), _Order(by_name[::-1]))

    def knows(self, name: bytes) -> bool:
        """Tell whether the name was there when the walk began."""
        return name in self._orders[0].places

    @property
    def size(self) -> int:
        """How many names there were when the walk began."""
        return len(self._orders[0].names)

    def begin(self) -> None:
        """Expect the first name next: somebody has listed them all."""
        for order in self._orders:
            order.begin()

    @property
    def in_order(self) -> bool:
        """Whether the last steps were in one of the orders."""
        return max(order.steps for order in self._orders) >= STEPS_BEFORE

    def used(self, name: bytes, limit: int) -> Sequence[bytes]:
        """Note that `name` was used; return at most `limit` names to bring ahead."""
        for order in self._orders:
            order.step(name)
        if not self.in_order:
            return ()
        return max(self._orders, key=lambda order: order.steps).window(limit)
