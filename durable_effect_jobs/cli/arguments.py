"""From what was typed to what is meant, or to a sentence about why it cannot be."""

from __future__ import annotations

import importlib
import sys
import traceback
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from types import ModuleType
from typing import Any, cast, get_args
from zoneinfo import ZoneInfo

from typing_extensions import TypeIs

from durable_effect import Effect, Need, Scope
from durable_effect.cron import Cron
from durable_effect_jobs.errors import Kind, StorageError
from durable_effect_jobs.instance import Key
from durable_effect_jobs.jobs import DurableJobs
from durable_effect_jobs.storage import Storage
from durable_effect_jobs.storage.open import open_storage
from durable_effect_jobs.storage.sqlite_file import MEMORY

__all__ = [
    "UsageError",
    "checked_url",
    "cron_from",
    "instant_from",
    "jobs_from",
    "key_from",
    "storage_from",
    "storage_to_change",
    "target_from",
]

_KINDS = get_args(Kind)
_LONGEST_NUMBER = 20
_STOP_THE_HOST = (
    "This command changes the file: stop the process that hosts its jobs first (SIGTERM lets its runs end)."
    " Looking needs no stop: ls, show, dead, doctor, and --dry-run"
)


class UsageError(Exception):
    """An argument that cannot be meant; the message says which and why."""


# -- instances -------------------------------------------------------------------------------------


def target_from(text: str) -> Key | int:
    """An instance, or a dead letter by its number."""
    if not (text.isascii() and text.isdigit()):
        return key_from(text)
    if not 1 <= int(text[:_LONGEST_NUMBER]) < 1 << 63 or len(text) >= _LONGEST_NUMBER:
        raise UsageError(f"{text} is no number of a dead letter: `durable-effect dead` shows them")
    return int(text)


def key_from(instance_id: str) -> Key:
    """``kind:job:id``; the id may hold colons itself."""
    kind, _, rest = instance_id.partition(":")
    job, colon, id_in_job = rest.partition(":")
    if kind not in _KINDS or not job or not colon:
        raise UsageError(
            f"{instance_id!r} is no instance id: that is kind:job:id, such as"
            f" continuous:tokenRefresher:user-123, and kinds are {', '.join(_KINDS)}"
        )
    key = Key(cast("Kind", kind), job, id_in_job)
    problem = key.problem()
    if problem is not None:
        raise UsageError(f"{instance_id!r} is no instance id: {problem}")
    return key


# -- storages --------------------------------------------------------------------------------------


def storage_from(url: str, *, read_only: bool = False) -> Effect[Storage, StorageError, Need[Scope]]:
    """The storage at a URL that other processes can have as well."""
    if checked_url(url).startswith(("memory:", f"sqlite:///{MEMORY}")):
        raise UsageError(f"{url} is seen only by the process that has it: name the storage of the host")
    return open_storage(url, read_only=read_only)


def storage_to_change(url: str) -> Effect[Storage, StorageError, Need[Scope]]:
    """The same, with the file for this process alone. Where a host has it, the error says what to do."""

    def explained(error: StorageError) -> StorageError:
        held = "is open already" in str(error)
        return StorageError(error.operation, f"{error.cause}. {_STOP_THE_HOST}") if held else error

    return storage_from(url).map_error(explained)


def checked_url(url: str) -> str:
    """The URL, if there can be a storage of this name."""
    try:
        _ = open_storage(url)  # made, and not run: it is only the name that is looked at
    except ValueError as error:
        raise UsageError(f"--storage: {error}") from error
    return url


# -- a user's jobs ---------------------------------------------------------------------------------


def jobs_from(target: str) -> DurableJobs[Any]:
    """The jobs at ``module:attribute``, imported from the working directory or the environment."""
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise UsageError(f"{target!r} is no module:attribute, such as myapp.jobs:jobs")
    module = _imported(module_name)
    try:
        found = getattr(module, attribute)
    except AttributeError:
        raise UsageError(f"{module_name} has no attribute {attribute!r}{_others(module)}") from None
    if not _are_jobs(found):
        raise UsageError(
            f"{target} is of type {type(found).__name__}, and not what create_durable_jobs(...) makes"
            f"{_others(module)}"
        )
    return found


def _are_jobs(value: object) -> TypeIs[DurableJobs[Any]]:
    return isinstance(value, DurableJobs)


def _imported(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is not None and f"{name}.".startswith(f"{missing.name}."):
            raise UsageError(
                f"there is no module {missing.name!r} in {here} or in this environment"
            ) from None
        raise UsageError(_broken(name, missing)) from missing
    except Exception as error:
        raise UsageError(_broken(name, error)) from error


def _broken(name: str, error: Exception) -> str:
    """Where the import failed: the innermost line is where the user has to look."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f'"{error.filename}", line {error.lineno}' if isinstance(error, SyntaxError) else _place(last)
    return f"importing {name} failed: {type(error).__name__}: {error} (at {where})"


def _place(frame: traceback.FrameSummary) -> str:
    return f'"{frame.filename}", line {frame.lineno}'


def _others(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if _are_jobs(value)]
    return f"; it has {', '.join(f'{module.__name__}:{name}' for name in names)}" if names else ""


# -- times -----------------------------------------------------------------------------------------


def cron_from(expression: str, tz: str) -> tuple[Cron, tzinfo]:
    """The schedule and its zone. UTC needs no time zone database, which not every machine has."""
    try:
        cron = Cron.parse(expression, tz)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return cron, UTC if cron.tz == "UTC" else ZoneInfo(cron.tz)


def instant_from(text: str, zone: tzinfo) -> datetime:
    """An ISO date and time; without an offset it is read off the wall clock in ``zone``."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--after: {text!r} is no ISO date and time, such as 2026-01-31T09:30 or 2026-01-31T09:30:00Z"
        ) from None
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=zone)
