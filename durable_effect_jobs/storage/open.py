"""From a URL to a storage."""

from __future__ import annotations

from urllib.parse import SplitResult, quote, unquote, urlsplit

from durable_effect import Effect, Need
from durable_effect.scope import Scope
from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.storage import Storage
from durable_effect_jobs.storage.memory import MemoryStorage
from durable_effect_jobs.storage.sqlite import SqliteStorage
from durable_effect_jobs.storage.sqlite_file import MEMORY, Synchronous

__all__ = ["open_storage"]

_FORMS = """accepted are
  memory://                      in the memory of this process
  sqlite:///jobs.db              a file, relative to the working directory
  sqlite:////var/lib/jobs.db     a file, absolute
  sqlite:///:memory:             a database without a file
with ?synchronous=normal behind a file to give up the last commits when power is lost; other characters in
a file's name are percent-encoded"""


_OPTIONS: dict[str, Synchronous] = {
    "": "full",
    "synchronous=full": "full",
    "synchronous=normal": "normal",
}


def open_storage(url: str, *, read_only: bool = False) -> Effect[Storage, StorageError, Need[Scope]]:
    """Open the storage that a URL names; it is closed with the scope.

    With ``read_only=True`` a SQLite file can be looked at while another process has it open.

    A URL that cannot be one is a ``ValueError`` here and now, that lists the accepted forms.
    """
    parts = _split(url)
    if parts.scheme == "memory":
        return _open_memory(url, parts)
    if parts.scheme == "sqlite":
        return _open_sqlite(url, parts, read_only)
    raise _refused(url, "no storage has this scheme")


def _split(url: str) -> SplitResult:
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise _refused(url, f"expected text, got {type(url).__name__}")
    if "://" not in url:
        form = f"sqlite:///{quote(url)}"
        raise _refused(url, f"a storage is named by a URL: for a SQLite file of this name write {form}")
    try:
        return urlsplit(url)
    except ValueError as error:
        raise _refused(url, str(error)) from error


def _open_memory(url: str, parts: SplitResult) -> Effect[Storage, StorageError, Need[Scope]]:
    if parts.netloc or parts.path or parts.query or parts.fragment:
        raise _refused(url, "memory:// takes nothing behind it")
    return Effect.sync(MemoryStorage)


def _open_sqlite(url: str, parts: SplitResult, read_only: bool) -> Effect[Storage, StorageError, Need[Scope]]:
    if parts.netloc:
        raise _refused(url, "a file's name begins after three slashes: sqlite:///jobs.db")
    if parts.fragment or url.endswith("#"):
        raise _refused(url, "write %23 for a # in a file's name")
    path = _decoded(url, parts.path.removeprefix("/"))
    synchronous = _synchronous(url, parts.query)
    if path != MEMORY and path.startswith(":"):
        raise _refused(url, f"the name of a database without a file is {MEMORY}")
    return SqliteStorage.open(path, synchronous=synchronous, read_only=read_only)


def _decoded(url: str, path: str) -> str:
    try:
        decoded = unquote(path, errors="strict")
    except UnicodeDecodeError as error:
        raise _refused(url, "the file's name is not percent-encoded UTF-8") from error
    if not decoded or decoded.endswith("/") or "\0" in decoded:
        raise _refused(url, "the name of a file is missing")
    return decoded


def _synchronous(url: str, query: str) -> Synchronous:
    if query in _OPTIONS:
        return _OPTIONS[query]
    raise _refused(url, "the only option is synchronous=full (the default) or synchronous=normal")


def _refused(url: object, reason: str) -> ValueError:
    return ValueError(f"cannot open storage {url!r}: {reason}; {_FORMS}")
