"""The questions that are asked over the screen. Escape always means no."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static


class Confirm(ModalScreen[bool]):
    """A yes or no. The key `y` says yes; Enter presses what has the focus, and that is No at first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape", "answer(False)", "No"),
    ]

    def __init__(self, question: str, yes: str = "Yes") -> None:
        super().__init__(classes="dialog")
        self._question = question
        self._yes = yes

    def compose(self) -> ComposeResult:
        """Put the question over the answers."""
        with Vertical():
            yield Static(self._question, markup=False)
            with Horizontal():
                yield Button("No (n)", id="no", action="screen.answer(False)")
                yield Button(f"{self._yes} (y)", id="yes", variant="warning", action="screen.answer(True)")

    def action_answer(self, answer: bool) -> None:
        """End with the answer."""
        self.dismiss(answer)


class Form(ModalScreen[tuple[str, ...] | None]):
    """A few lines to fill in. Enter goes to the next, and on the last accepts."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Cancel")]

    def __init__(
        self, title: str, fields: Sequence[tuple[str, str]], *, secret: str = "", begin: int = 0
    ) -> None:
        """`fields`: label and first contents of each; the field labelled `secret` hides what is typed.

        Typing begins in the first line that is empty, else in number `begin`.
        """
        super().__init__(classes="dialog")
        self._title = title
        self._fields = tuple(fields)
        self._secret = secret
        self._begin = begin

    def compose(self) -> ComposeResult:
        """Put the lines under the title."""
        with Vertical():
            yield Static(self._title, markup=False)
            for label, first in self._fields:
                yield Label(label)
                yield Input(first, password=label == self._secret, compact=True)
            with Horizontal():
                yield Button("Cancel", action="screen.leave")
                yield Button("OK", variant="primary", action="screen.accept")

    def on_mount(self) -> None:
        """Begin to type."""
        lines = list(self.query(Input))
        next((line for line in lines if not line.value), lines[self._begin]).focus()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """Go on."""
        lines = list(self.query(Input))
        place = lines.index(message.input)
        if place + 1 < len(lines):
            lines[place + 1].focus()
        else:
            self.action_accept()

    def action_accept(self) -> None:
        """End with what the lines hold."""
        self.dismiss(tuple(line.value for line in self.query(Input)))

    def action_leave(self) -> None:
        """End with nothing."""
        self.dismiss(None)
