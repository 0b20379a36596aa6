"""Changes of names that 64-bit reference servers do not survive, and the ways around them. Pure.

Servers of replicated volumes keep a record of every change of a directory until the second phase has named
all replicas. In builds for 64-bit machines such a record is written four bytes beyond what was allocated for
it. The allocator rounds up to blocks of 64 bytes, so nearly always nothing happens; but a record that ends
within the last three bytes of a block spoils the block's guard, and the server ends itself (`rvmlib_free`)
when it frees the record, as soon as the *next* change of that directory has had its second phase. All
replicas do so at once, and again after each restart. A new file with a name of 18 bytes is enough, whoever
makes it; git makes several in each new repository (docs/reference/protocol-notes.md).

      header 16 │ length 4 │ (4) │ the record: size bytes │ slack │ guard 8
                └ allocated: 4 + size bytes, and 1 to 64 bytes of slack up to a whole block
                └ written:   8 + size bytes, because of the alignment of what follows the length

The size depends on the names alone, so what cannot be said in one step is said in two: a name that cannot be
given to a new object is given by renaming it from a harmless one, and so on. Steps that follow one another in
one log are executed together, and the name in between is one that nobody else uses.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from realmfs.vice.log import AnyRecord, Create, Link, MakeDir, Remove, RemoveDir, Rename, SymLink
from realmfs.vice.types import StoreId

_FIXED: Final = {
    Create.OPCODE: 16,
    SymLink.OPCODE: 16,
    MakeDir.OPCODE: 16,
    Link.OPCODE: 56,
    Remove.OPCODE: 56,
    RemoveDir.OPCODE: 40,
}
"""Bytes of a record in a server's log, but for its name."""
_RENAME_FIXED: Final = 138
_BLOCK, _OVERHEAD, _OVERRUN = 64, 24 + 4, 4
_LONGEST: Final = 255

_Named = Create | SymLink | MakeDir | Link | Remove | RemoveDir


def is_fatal(record: AnyRecord) -> bool:
    """Tell whether a record spoils the memory of a server that executes it."""
    if isinstance(record, Rename):
        size = _RENAME_FIXED + len(record.old_name) + len(record.new_name)
    elif isinstance(record, _Named):
        size = _FIXED[record.OPCODE] + len(record.name)
    else:
        return False
    return _BLOCK - (size + _OVERHEAD) % _BLOCK < _OVERRUN


def steps(record: AnyRecord) -> tuple[AnyRecord, ...]:
    """Return what to log for a change: the record itself, or harmless ones that do the same together."""
    if not is_fatal(record):
        return (record,)
    return next(way for way in _ways(record) if not any(map(is_fatal, way)))


def _ways(record: AnyRecord) -> Iterator[tuple[AnyRecord, ...]]:
    stem = b"~%x.%x" % record.fid[1:]
    for length in range(len(stem), _LONGEST):
        between = stem.ljust(length, b"~")
        if isinstance(record, Rename):
            first = replace(record, new_parent=record.old_parent, new_name=between)
            yield first, replace(record, old_name=between)
        elif isinstance(record, Remove | RemoveDir):
            yield _rename(record, record.name, between), replace(record, name=between)
        elif isinstance(record, _Named):
            yield replace(record, name=between), _rename(record, between, record.name)


def _rename(record: _Named, old: bytes, new: bytes) -> Rename:
    return Rename(
        mtime=record.mtime,
        store_id=StoreId(0, 0),
        old_parent=record.parent,
        old_name=old,
        new_parent=record.parent,
        new_name=new,
        fid=record.fid,
    )
