"""A disk of which one call fails, or all from that one on, until it is repaired."""

from __future__ import annotations

from collections import Counter
from typing import Literal, TypeAlias

import apsw

__all__ = ["Fault", "FaultyVfs", "Lasting"]

Lasting: TypeAlias = Literal["once", "until repaired"]

_ERRORS: dict[str, tuple[type[apsw.Error], str]] = {
    "write": (apsw.FullError, "the disk is full"),
    "sync": (apsw.IOError, "not synced"),
    "read": (apsw.IOError, "not read"),
    "truncate": (apsw.IOError, "not cut off"),
    "open": (apsw.CantOpenError, "not opened"),
    "delete": (apsw.IOError, "not deleted"),
}


class Fault:
    """Which call fails: the ``at``-th of all, counted from 1; with 0 none does."""

    def __init__(self, at: int, lasting: Lasting = "once") -> None:
        self._at = at
        self._lasting: Lasting = lasting
        self.calls = 0
        self.injected: Counter[str] = Counter()

    def repair(self) -> None:
        """From now on nothing fails."""
        self._at = 0

    def pass_or_raise(self, call: str) -> None:
        """Count a call, and fail it when its time has come."""
        self.calls += 1
        if self.calls == self._at or (self._lasting == "until repaired" and 0 < self._at < self.calls):
            self.injected[call] += 1
            error, reason = _ERRORS[call]
            raise error(reason)


class FaultyVfs(apsw.VFS):
    """Files on the real disk. Syncs succeed or fail without being done: the real disk is not cut off."""

    def __init__(self, name: str, fault: Fault) -> None:
        self.fault = fault
        super().__init__(name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        """Open a file, perhaps."""
        self.fault.pass_or_raise("open")
        return _FaultyFile(name, flags, self)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Remove a file, perhaps."""
        self.fault.pass_or_raise("delete")
        super().xDelete(filename, syncdir)


class _FaultyFile(apsw.VFSFile):
    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int], vfs: FaultyVfs) -> None:
        self._vfs = vfs
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._vfs.fault.pass_or_raise("write")
        super().xWrite(data, offset)

    def xRead(self, amount: int, offset: int) -> bytes:
        self._vfs.fault.pass_or_raise("read")
        return super().xRead(amount, offset)

    def xTruncate(self, newsize: int) -> None:
        self._vfs.fault.pass_or_raise("truncate")
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        self._vfs.fault.pass_or_raise("sync")
