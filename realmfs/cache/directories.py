"""Directory contents in Vice form, 2 KiB pages, of which the changed ones are written (directories.md §1).

Directory contents in Vice form, 2 KiB pages, of which only the changed ones are written (directories.md
§1).
"""

from collections.abc import Mapping

from realmfs.cache.database import Database

PAGE = 2048
_SHIFT = 7  # at most 128 pages


class Directories:
    """The table of directory pages, by the directory's inode number."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, number: int) -> bytes | None:
        """Return the whole image; None if there is none."""
        rows = self._database.rows(
            "SELECT data FROM page WHERE id BETWEEN ? AND ? ORDER BY id", _span(number)
        )
        return b"".join(data for (data,) in rows) or None

    def has(self, number: int) -> bool:
        """Is the image here?"""
        return self._database.row("SELECT 1 FROM page WHERE id = ?", (number << _SHIFT,)) is not None

    def write(self, number: int, pages: Mapping[int, bytes]) -> None:
        """Write the changed pages.

        Directories never shrink, so there is nothing to remove. Inside a transaction.
        """
        for page, data in pages.items():
            self._database.write(
                "INSERT OR REPLACE INTO page (id, data) VALUES (?, ?)", (number << _SHIFT | page, data)
            )

    def replace(self, number: int, image: bytes) -> None:
        """Put a fetched image in place of what is there. Inside a transaction."""
        self.drop(number)
        self.write(
            number, {start // PAGE: image[start : start + PAGE] for start in range(0, len(image), PAGE)}
        )

    def drop(self, number: int) -> None:
        """Forget the image. Inside a transaction."""
        self._database.write("DELETE FROM page WHERE id BETWEEN ? AND ?", _span(number))

    def move(self, old: int, new: int) -> None:
        """Give the pages to another inode number. Inside a transaction."""
        self._database.write(
            "UPDATE page SET id = id + ? WHERE id BETWEEN ? AND ?", ((new - old) << _SHIFT, *_span(old))
        )


def _span(number: int) -> tuple[int, int]:
    return number << _SHIFT, (number + 1 << _SHIFT) - 1
