"""A disk that remembers all that was done to it, and the disks that a power cut can leave of it.

Until a file is synced nobody knows what is on the disk of what was done to it: each write may be there, be
missing, or be there in some of its 512-byte sectors only; each truncation and deletion may be there or not.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol, TypeAlias

import apsw
import attrs

__all__ = ["Delete", "Dice", "Disk", "DiskOperation", "RecordingVfs", "Sync", "Truncate", "Write"]

_SECTOR = 512


@attrs.frozen
class Write:
    """Bytes put into a file, which is made by the first of them."""

    file: str
    offset: int
    data: bytes


@attrs.frozen
class Truncate:
    """A file cut off."""

    file: str
    size: int


@attrs.frozen
class Delete:
    """A file removed; ``synced`` when the caller did not go on before that was on the disk."""

    file: str
    synced: bool


@attrs.frozen
class Sync:
    """All that was done to a file is on the disk."""

    file: str


DiskOperation: TypeAlias = Write | Truncate | Delete | Sync


class Dice(Protocol):
    """What is needed of ``random.Random``."""

    def random(self) -> float:
        """At least 0 and less than 1."""
        ...


class RecordingVfs(apsw.VFS):
    """Files on the real disk, and everything that is done to them told to ``record`` before it happens.

    Syncs are recorded and not done: the real disk is never cut off, and waiting for it would be for nothing.
    """

    def __init__(self, name: str, record: Callable[[DiskOperation], None]) -> None:
        self._record = record
        super().__init__(name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        """Open a file that records."""
        return _RecordingFile(name, flags, self._record)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Remove a file."""
        self._record(Delete(os.path.basename(filename), syncdir))
        super().xDelete(filename, syncdir)


class _RecordingFile(apsw.VFSFile):
    def __init__(
        self,
        name: str | apsw.URIFilename | None,
        flags: list[int],
        record: Callable[[DiskOperation], None],
    ) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name or "temporary"
        self._name = os.path.basename(path)
        self._record = record
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._record(Write(self._name, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._record(Truncate(self._name, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        self._record(Sync(self._name))


class Disk:
    """A disk at one moment of a recording: what is on it for sure, and what may be."""

    __slots__ = ("_durable", "_pending")

    def __init__(self, files: dict[str, bytes]) -> None:
        self._durable = dict(files)
        self._pending: dict[str, list[Write | Truncate | Delete]] = {}

    def do(self, operation: DiskOperation) -> None:
        """Go on by one operation of the recording."""
        match operation:
            case Sync(file) | Delete(file, synced=True):
                self._settle(file, operation)
            case _:
                self._pending.setdefault(operation.file, []).append(operation)

    def rename(self, before: str, after: str) -> None:
        """Give a file that is all on the disk another name, and see to it that this is on the disk too."""
        assert before not in self._pending
        self._durable[after] = self._durable.pop(before)

    @property
    def is_uncertain(self) -> bool:
        """Whether a loss of power may leave more than one disk."""
        return bool(self._pending)

    def after_power_loss(self, dice: Dice) -> dict[str, bytes]:
        """The files of one of the disks that may be left."""
        fate = _fate(dice)
        files = {file: self._remains(file, fate) for file in self._durable.keys() | self._pending.keys()}
        return {file: bytes(content) for file, content in files.items() if content is not None}

    def _settle(self, file: str, last: Sync | Delete) -> None:
        content = self._remains(file, _happened)
        if content is None or isinstance(last, Delete):
            self._durable.pop(file, None)
        else:
            self._durable[file] = bytes(content)
        self._pending.pop(file, None)

    def _remains(self, file: str, fate: _Fate) -> bytearray | None:
        durable = self._durable.get(file)
        content = None if durable is None else bytearray(durable)
        for operation in self._pending.get(file, ()):
            if isinstance(operation, Delete):
                if not fate(0):
                    return content  # what follows was done to a new file, whose name was never written
                content = None
                continue
            content = bytearray() if content is None else content
            if isinstance(operation, Write):
                _put(content, operation, fate)
            elif fate(0):
                del content[operation.size :]
        return content


_Fate: TypeAlias = Callable[[int], bool]
"""Whether the sector with this number, of an operation that was not synced, is on the disk. Sectors are asked
for in order, from 0."""


def _happened(_: int) -> bool:
    return True


def _lost(_: int) -> bool:
    return False


def _fate(dice: Dice) -> _Fate:
    """One of the extremes now and then; else each operation is whole, missing or torn."""
    mood = dice.random()
    if mood < 0.1:
        return _lost
    if mood < 0.2:
        return _happened
    chance = 0.0

    def each(sector: int) -> bool:
        nonlocal chance
        if sector == 0:
            drawn = dice.random()
            chance = 1.0 if drawn < 0.4 else 0.0 if drawn < 0.7 else dice.random()
        return dice.random() < chance

    return each


def _put(content: bytearray, write: Write, fate: _Fate) -> None:
    """Sector by sector: borders of sectors are those of the disk."""
    start, sector = write.offset, 0
    end = write.offset + len(write.data)
    while start < end:
        stop = min(end, (start // _SECTOR + 1) * _SECTOR)
        if fate(sector):
            if len(content) < stop:
                content.extend(bytes(stop - len(content)))
            content[start:stop] = write.data[start - write.offset : stop - write.offset]
        start, sector = stop, sector + 1
