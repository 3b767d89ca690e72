"""A process that commits steps for as long as it lives, and tells of each one after it is acknowledged."""

import os
import sys

from storage_scene import DAY, NOON, birth, born, change, fact, task

from durable_effect import Do, Effect
from durable_effect_jobs.instance import Mark
from durable_effect_jobs.storage.sqlite import SqliteStorage

WRITERS = 8


@Effect.gen
def write(storage: SqliteStorage, writer: int) -> Do[None, Exception]:
    """Step after step of one instance: record, event and mark carry the same number."""
    key = task(str(writer))
    before = yield from storage.load(key)
    while True:
        number = 0 if before is None else before.run_count + 1
        parts = {
            "token": f"{writer}-{number}",  # those of the scene are unique in one process only
            "events": (fact(f"{writer}-{number}", key),),
            "mark": Mark(str(number), NOON + DAY),
        }
        if before is None:
            after = born(key)
            yield from storage.commit(birth(after, **parts))
        else:
            after = before.evolve(run_count=number, state=b"x" * (number % 3 * 5000))
            yield from storage.commit(change(before, after, **parts))
        os.write(1, f"{writer} {number}\n".encode())
        before = after


@Effect.gen
def main(path: str) -> Do[None, Exception]:
    """All writers at once, so that they share transactions."""
    storage = yield from SqliteStorage.open(path)
    yield from Effect.for_each(range(WRITERS), lambda n: write(storage, n), concurrency="unbounded")


if __name__ == "__main__":
    main(sys.argv[1]).scoped().run()
