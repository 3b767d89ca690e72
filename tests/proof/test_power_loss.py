"""Power loss: whatever a cut leaves of the disk, what was acknowledged is there, and nothing by halves.

A storage works on a disk that remembers everything that is done to it. Then, for every moment of that
recording, disks are built that a loss of power could have left at that moment, and opened.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import pytest
from storage_steps import LEASE, NOON, Task, step_on

from durable_effect import Do, Effect, Random
from durable_effect_jobs.storage import Storage
from durable_effect_jobs.storage.sqlite import SqliteStorage
from durable_effect_jobs.storage.sqlite_file import Synchronous

pytest.importorskip("apsw", reason="apsw stands between SQLite and the disk, and is not installed")

from apsw_connection import SYSTEM, ApswConnection, connector
from recording_vfs import Disk, DiskOperation, RecordingVfs

IMAGES = 20_000
CONTROL_IMAGES = 2_000
IMAGES_PER_OPERATION = 10
TASKS = 6
ROUNDS = 20
OPENINGS = 3
"""How often the storage of a recording is opened, for that many rounds each time."""
OPENED_WHOLE = 40
"""Every image is looked at with SQLite; one in so many is opened by a storage, which has to go on with it."""

View: TypeAlias = Mapping[str, Any]
"""All that is stored, by the task that it belongs to."""


@attrs.frozen
class Began:
    """Steps on some tasks began: what they do may be found from now on."""

    tasks: frozenset[str]


@attrs.frozen
class Acknowledged:
    """The step on this task was answered: what it did has to be found from now on."""

    task: str


@attrs.define
class Recording:
    """What happened to the disk and to its users, in order, and what was stored after each round."""

    files: dict[str, bytes]
    log: list[DiskOperation | Began | Acknowledged] = attrs.field(factory=list[Any])
    views: list[View] = attrs.field(factory=list[View])


# -- what is stored -----------------------------------------------------------------------------------

_TABLES = {
    "instance": "id",
    "mark": "id",
    "dead_letter": "id",
    "outbox": "substr(event_id, 1, instr(event_id, '-') - 1)",
    "receipt": "substr(token, 1, instr(token, '-') - 1)",
}


FENCES = "the fences that were given"


def view(connection: sqlite3.Connection | ApswConnection) -> View:
    """Every row of every table, by the task that it belongs to, and the highest fence that was ever given."""
    found: dict[str, list[object]] = {}
    for table, task in _TABLES.items():
        for row in connection.execute(f"SELECT {task}, * FROM {table}").fetchall():
            found.setdefault(row[0], []).append((table, *row[1:]))
    (fence,) = connection.execute("SELECT value FROM counter WHERE name = 'fence'").fetchone()
    return {FENCES: fence, **{task: tuple(rows) for task, rows in found.items()}}


# -- recording ----------------------------------------------------------------------------------------


def record(directory: Path, synchronous: Synchronous, seed: int) -> Recording:
    """Rounds of steps on different tasks at once, so that they share transactions and end in any order."""
    path = directory / "jobs.db"
    SqliteStorage.open(path).scoped().run()
    recording = Recording({path.name: path.read_bytes()}, views=[{FENCES: 0}])
    vfs = RecordingVfs("recording", recording.log.append)
    tasks = [Task.named(f"k{n}") for n in range(TASKS)]
    dice = Random.seeded(seed).source

    @Effect.gen
    def rounds(storage: Storage) -> Do[None, Any]:
        for _ in range(ROUNDS):
            chosen = dice.sample(tasks, 1 + dice.randrange(4))
            recording.log.append(Began(frozenset(task.key.id for task in chosen)))
            steps = [_told(recording, task, step_on(task, storage, dice)) for task in chosen]
            yield from Effect.all(steps, concurrency="unbounded")
            with closing(ApswConnection(path.as_uri(), SYSTEM)) as reader:
                recording.views.append(view(reader))

    for _ in range(OPENINGS):
        opened = SqliteStorage.open(
            path,
            synchronous=synchronous,
            connector=connector("recording", "PRAGMA wal_autocheckpoint = 20"),
        )
        opened.flat_map(rounds).scoped().run()
    del vfs
    return recording


def _told(recording: Recording, task: Task, step: Effect[None, Any]) -> Effect[None, Any]:
    return step.tap(lambda _: Effect.sync(lambda: recording.log.append(Acknowledged(task.key.id))))


# -- judging ------------------------------------------------------------------------------------------


@attrs.define
class Moment:
    """How far a recording has come: what the disk may hold, and what has to be found on it."""

    recording: Recording
    disk: Disk
    round: int = 0
    in_flight: frozenset[str] = frozenset()

    @staticmethod
    def all_of(recording: Recording) -> Iterator[Moment]:
        """One after another, after every operation of the disk."""
        moment = Moment(recording, Disk(recording.files))
        for entry in recording.log:
            match entry:
                case Began(tasks):
                    moment.round += 1
                    moment.in_flight = tasks
                case Acknowledged(task):
                    moment.in_flight -= {task}
                case _:
                    moment.disk.do(entry)
                    yield moment

    def verdict(self, found: View) -> str:
        """What became of the tasks, the worst of it."""
        now, before = self.recording.views[self.round], self.recording.views[max(0, self.round - 1)]
        verdicts: set[str] = set()
        if not before[FENCES] <= found[FENCES] <= now[FENCES]:
            verdicts.add("lost")
        for task in (now.keys() | before.keys() | found.keys()) - {FENCES}:
            allowed = [now.get(task)] + ([before.get(task)] if task in self.in_flight else [])
            if found.get(task) in allowed:
                continue
            earlier = self.recording.views[: self.round]
            verdicts.add(
                "lost" if any(found.get(task) == past.get(task) for past in earlier) else "by halves"
            )
        return "by halves" if "by halves" in verdicts else "lost" if verdicts else "kept"


def judge(recording: Recording, directory: Path, seed: int, limit: int) -> Counter[str]:
    """Cut the power at every moment, several times where that may leave different disks."""
    dice = Random.seeded(seed).source
    verdicts: Counter[str] = Counter()
    for moment in Moment.all_of(recording):
        for _ in range(IMAGES_PER_OPERATION if moment.disk.is_uncertain else 1):
            if verdicts.total() == limit:
                return verdicts
            image = moment.disk.after_power_loss(dice)
            if verdicts.total() % OPENED_WHOLE == 0:
                put(image, directory)
                goes_on(directory / "jobs.db")
            put(image, directory)
            found = look(directory / "jobs.db")
            verdicts["corrupt" if found is None else moment.verdict(found)] += 1
    return verdicts


def put(image: Mapping[str, bytes], directory: Path) -> None:
    """Make a directory hold this image, and nothing else."""
    for file in directory.iterdir():
        file.unlink()
    for name, content in image.items():
        (directory / name).write_bytes(content)


def look(path: Path) -> View | None:
    """What SQLite finds in the file; ``None`` when the file is broken."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        try:
            if connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                return None
            return view(connection)
        except sqlite3.DatabaseError:
            return None


def goes_on(path: Path) -> None:
    """A storage opens the file, finds nothing that must not be, and can write to all it finds and more."""

    @Effect.gen
    def go_on(storage: Storage) -> Do[None, Any]:
        assert (yield from storage.survey(NOON, lease=LEASE)).violations == ()
        dice = Random.seeded(1).source
        tasks = [Task(found.key, found, found.run_count) for found in (yield from storage.instances())]
        for task in [*tasks, Task.named("new")]:
            yield from step_on(task, storage, dice)
            assert (yield from storage.load(task.key)) == task.record

    SqliteStorage.open(path).flat_map(go_on).scoped().run()


# -- the claims ---------------------------------------------------------------------------------------


def cut_power(directory: Path, synchronous: Synchronous, images: int) -> Counter[str]:
    """Record and judge, with other dice each time, until so many disks were built."""
    verdicts: Counter[str] = Counter()
    for seed in count(1):
        if verdicts.total() == images:
            break
        here = directory / str(seed)
        (here / "left").mkdir(parents=True)
        recording = record(here, synchronous, seed)
        verdicts += judge(recording, here / "left", seed, images - verdicts.total())
    return verdicts


def test_what_was_acknowledged_survives_a_loss_of_power(
    fast_path: Path, tier: int, report: Callable[..., None]
) -> None:
    """With ``synchronous=full`` every disk that a cut can leave holds all that was acknowledged, whole."""
    verdicts = cut_power(fast_path, "full", IMAGES * tier)
    report("power loss, synchronous=full", images=verdicts.total(), **_figures(verdicts))
    assert verdicts == {"kept": IMAGES * tier}


def test_a_storage_that_does_not_wait_for_the_disk_loses(
    fast_path: Path, report: Callable[..., None]
) -> None:
    """The control: ``synchronous=normal`` loses the last commits, as it says, and never breaks the file.

    What is found is older than it should be, but each step is still there whole or not at all.
    """
    verdicts = cut_power(fast_path, "normal", CONTROL_IMAGES)
    report("power loss, synchronous=normal", images=verdicts.total(), **_figures(verdicts))
    assert verdicts["lost"] > CONTROL_IMAGES // 20
    assert verdicts.keys() == {"kept", "lost"}


def _figures(verdicts: Counter[str]) -> dict[str, int]:
    return {name.replace(" ", "_"): verdicts[name] for name in ("kept", "lost", "by halves", "corrupt")}


def test_a_cut_while_the_file_is_made_leaves_none_or_all_of_it(
    fast_path: Path, report: Callable[..., None]
) -> None:
    """A new database is made under another name first: what is left of that is in nobody's way."""
    path = fast_path / "made" / "jobs.db"
    path.parent.mkdir()
    log: list[DiskOperation] = []
    vfs = RecordingVfs("recording", log.append)
    SqliteStorage.open(path, connector=connector("recording")).scoped().run()
    del vfs
    left = fast_path / "left"
    left.mkdir()
    disk, dice, images = Disk({}), Random.seeded(1).source, 0
    draft = log[0].file.removesuffix("-journal")
    for operation in log:
        if draft != path.name and not operation.file.startswith(draft):
            disk.rename(draft, path.name)  # which our side does, and waits for
            draft = path.name
        disk.do(operation)
        for _ in range(IMAGES_PER_OPERATION if disk.is_uncertain else 1):
            put(disk.after_power_loss(dice), left)
            goes_on(left / path.name)
            images += 1
    assert draft == path.name
    report("power loss while the file is made", images=images, opened=images)
