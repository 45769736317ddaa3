"""Which WAL belongs to which database file: SQLite itself does not know.

SQLite opens a file with whatever ``-wal`` lies beside it. When the file is replaced (a backup is moved in its
place) and the old one's WAL stays, the new file is overwritten with pages of the old one. So beside a
database in use there is a note, ``<file>-pyglyn``, of the file and the WAL that were together; a WAL that was
noted with another file is stale, and such a pair is not opened.

A WAL is known by its inode and by what stays the same in its header while it is used again and again: the
difference of its first salt and its number of checkpoints, at first random (`walRestartHdr` of SQLite).

Not noticed: a file whose contents are overwritten in place; WALs that only other programs have used.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from typing import TypeAlias

from pyglyn.errors import EventStoreError

FileIdentity: TypeAlias = tuple[int, int] | None
"""Device and inode; None where there is no file."""

_HEADER = struct.Struct(">IIIIIIII")
_MAGIC = (0x377F0682, 0x377F0683)


def identity(path: str) -> FileIdentity:
    """Return what tells a file from another one at the same place."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def note(path: str) -> bool:
    """Note which WAL a database file has now; False while that has nothing in it."""
    wal = _wal_of(path)
    if wal is None:
        return False
    text = json.dumps({"file": identity(path), "wal": wal})
    place = _note_of(path)
    with contextlib.suppress(OSError):  # a folder that cannot be written to
        if _read(place) != text:
            temporary = f"{place}.{os.getpid()}"
            with open(temporary, "w") as file:
                file.write(text)
            os.replace(temporary, place)
    return True


def forget(path: str) -> None:
    """Take the note away once there is no WAL any more."""
    if not os.path.exists(f"{path}-wal"):
        with contextlib.suppress(OSError):
            os.unlink(_note_of(path))


def refuse_stale(path: str) -> None:
    """Check that the WAL beside a database file is not known to be another one's; changes nothing.

    Raises:
        EventStoreError: it is; says what to do.
    """
    try:
        noted = json.loads(_read(_note_of(path)) or "{}")
    except ValueError:
        return
    file, wal = identity(path), _wal_of(path)
    if wal is None or noted.get("wal") != list(wal) or noted.get("file") in (None, list(file or ())):
        return
    what = "was replaced" if file is not None else "was deleted"
    raise EventStoreError(
        f"{path} {what}, but {path}-wal is still the one of the file that was there before: opened together "
        f"they would destroy each other. Stop all programs that use it, then delete {path}-wal and {path}-shm"
        " (with them, what the old file had not taken over yet)"
    )


def _note_of(path: str) -> str:
    return f"{path}-pyglyn"


def _wal_of(path: str) -> tuple[int, int, int] | None:
    """Return what a WAL is known by; None when there is none, or nothing in it."""
    try:
        with open(f"{path}-wal", "rb") as file:
            found = os.fstat(file.fileno())
            header = file.read(_HEADER.size)
    except OSError:
        return None
    if len(header) < _HEADER.size:
        return None
    magic, _, _, checkpoints, salt, *_ = _HEADER.unpack(header)
    return (found.st_dev, found.st_ino, (salt - checkpoints) % 2**32) if magic in _MAGIC else None


def _read(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None
