"""The process that hosts the demo's jobs, until it is killed or its standard input ends.

It takes calls from its standard input and tells what happens on its standard output, one JSON object a line:

    in    {"ref": 7, "call": "add", "job": "webhookBatcher", "what": {"id": "c-1", ...}}
    out   {"ready": true}
    out   {"acknowledged": 7}                          the call's commit is durable
    out   {"refused": 8, "reason": "..."}
    out   {"log": "...", "level": 20, "instance_id": "..."}
    out   {"instances": [{"kind": "continuous", ...}]}      every record, a few times a second
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from returns.result import Failure

from durable_effect import Do, Effect, MissingServiceError, Need, Scope
from durable_effect_jobs import DuplicateEventError, JobsClient, StorageError
from durable_effect_jobs.demo.jobs import jobs
from durable_effect_jobs.instance import Instance, Key
from durable_effect_jobs.storage import Storage
from durable_effect_jobs.storage.open import open_storage

__all__ = ["instance_from_json", "main"]


def main() -> None:
    """Host the jobs on the storage whose URL is the one argument."""
    logging.getLogger("durable_effect_jobs").addHandler(_Teller())
    _work(sys.argv[1]).scoped().run()


@Effect.gen
def _work(url: str) -> Do[None, MissingServiceError | StorageError, Need[Scope]]:
    storage = yield from open_storage(url)
    client = yield from jobs.open(storage)
    yield from _show(storage).fork_scoped()
    _tell(ready=True)
    while line := (yield from Effect.from_thread(sys.stdin.readline)):
        yield from _take(client, json.loads(line))


@Effect.gen
def _take(client: JobsClient, request: dict[str, Any]) -> Do[None]:
    answer = yield from _call(client, request).result()
    match answer:
        case Failure(error) if not isinstance(error, DuplicateEventError):
            _tell(refused=request["ref"], reason=str(error))
        case _:  # an event that was accepted before, by the worker that was killed, is as good as a new one
            _tell(acknowledged=request["ref"])


def _call(client: JobsClient, request: dict[str, Any]) -> Effect[Any, Any]:
    job, what = request["job"], request["what"]
    match request["call"]:
        case "start":
            return client.continuous(job).start(**what)
        case "add":
            return client.debounce(job).add(**what)
        case _:
            return client.task(job).send(**what)


@Effect.gen
def _show(storage: Storage) -> Do[None, StorageError]:
    while True:
        instances = yield from storage.instances(limit=1000)
        _tell(instances=[_instance_to_json(instance) for instance in instances])
        yield from Effect.sleep("150 ms")


def _instance_to_json(instance: Instance) -> dict[str, Any]:
    key, state = instance.key, instance.state
    return {
        "kind": key.kind,
        "job": key.job,
        "id": key.id,
        "revision": instance.revision,
        "state": None if state is None else state.decode(),
        "record": json.loads(instance.to_bytes()),
    }


def instance_from_json(told: dict[str, Any]) -> Instance:
    """The record that a worker told of."""
    state = told["state"]
    return Instance.from_bytes(
        Key(told["kind"], told["job"], told["id"]),
        told["revision"],
        None if state is None else state.encode(),
        json.dumps(told["record"]).encode(),
    )


class _Teller(logging.Handler):
    """Logs, as lines of the worker's output. That a run went well is not told: the records show it."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "result", None) != "done":
            instance_id = getattr(record, "instance_id", record.name)
            _tell(log=record.getMessage(), level=record.levelno, instance_id=instance_id)


def _tell(**said: Any) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
