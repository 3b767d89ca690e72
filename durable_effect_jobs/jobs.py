"""An application's jobs, ready to be connected to a storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, overload

from typing_extensions import Never, TypeVar

from durable_effect import (
    Cause,
    Do,
    Effect,
    Env,
    Exit,
    Failure,
    Layer,
    MissingServiceError,
    Need,
    Scope,
    Success,
)
from durable_effect_jobs.client import JobsClient
from durable_effect_jobs.engine import Engine
from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.registry import Registry
from durable_effect_jobs.services import missing_services
from durable_effect_jobs.step import Job, Limits, check_option
from durable_effect_jobs.storage import Storage
from durable_effect_jobs.storage.open import open_storage
from durable_effect_jobs.telemetry import Sink, start_sender
from durable_effect_jobs.tracker import Tracker

__all__ = ["Connection", "DurableJobs", "create_durable_jobs", "start_engine"]

_LAST_TRY = timedelta(seconds=2)
"""For what is still to be sent when closing, beyond the time that running handlers are given."""

E = TypeVar("E", covariant=True, default=Never)
E1 = TypeVar("E1")
Services = TypeVar("Services")


class DurableJobs(Generic[E]):
    """Definitions and the services that they need. ``E`` is what building those services can fail with."""

    def __init__(self, registry: Registry, services: Layer[Any, Any, Never], tracker: Tracker | None) -> None:
        self.registry = registry
        self.services = services
        self.tracker = tracker

    def connect(self, storage: str | Storage, /, *, alarms: bool = True) -> Connection[E]:
        """Open the storage, start the alarms and give a client; on exit, drain.

        ``storage`` is ``sqlite:///file.db``, ``memory://`` or a :class:`Storage`. With ``alarms=False`` this
        process only calls: alarms that its calls set to now run within them, all others wait for a process
        that runs alarms. Telemetry is sent by the processes that run alarms.
        """
        return Connection(self.open(storage, alarms=alarms))

    def layer(
        self, storage: str | Storage, /, *, alarms: bool = True
    ) -> Layer[Need[JobsClient], E | StorageError | MissingServiceError]:
        """The same as a layer that provides :class:`JobsClient`, for effect programs."""
        return Layer.scoped(JobsClient, self.open(storage, alarms=alarms))

    def open(
        self, storage: str | Storage, /, *, alarms: bool = True
    ) -> Effect[JobsClient, E | StorageError | MissingServiceError, Need[Scope]]:
        """The same as an effect that is undone at the end of its scope."""
        return self._open(_opened(storage), alarms)

    @Effect.gen
    def _open(
        self, opened: Effect[Storage, StorageError, Need[Scope]], alarms: bool
    ) -> Do[JobsClient, Any, Need[Scope]]:
        services = yield from self.services.build()
        storage = yield from opened
        if alarms and self.tracker is not None:
            last_try = min(_LAST_TRY, self.registry.limits.drain_timeout)
            yield from _send_telemetry(storage, self.tracker, last_try)
        engine = yield from start_engine(self.registry, storage, services, alarms=alarms, polls=True)
        return JobsClient(engine)


def _opened(storage: Any) -> Effect[Storage, StorageError, Need[Scope]]:
    """What is no storage is read as the name of one, and refused with what that could be."""
    return Effect.succeed(storage) if hasattr(storage, "commit") else open_storage(storage)


@Effect.gen
def _send_telemetry(storage: Storage, tracker: Tracker, last_try: timedelta) -> Do[None, Never, Need[Scope]]:
    sink = (yield from _endpoint_of(tracker)) if tracker.sink is None else tracker.sink
    if sink is not None:
        yield from start_sender(
            storage, sink, batch_size=tracker.batch_size, timeout=tracker.timeout, last_try=last_try
        )


@Effect.gen
def _endpoint_of(tracker: Tracker) -> Do[Sink | None, Never, Need[Scope]]:
    if tracker.endpoint is None:
        return None
    from durable_effect_jobs.telemetry.http import HttpSink  # needs the extra `http`

    return (
        yield from HttpSink.open(
            tracker.endpoint,
            env=tracker.env,
            service_key=tracker.service_key,
            headers=tracker.headers,
            timeout=tracker.timeout,
        )
    )


@Effect.gen
def start_engine(
    registry: Registry, storage: Storage, services: Env, *, alarms: bool, polls: bool
) -> Do[Engine, StorageError | MissingServiceError, Need[Scope]]:
    """An engine whose handlers see ``services``, which must hold what they say they need."""
    missing = missing_services(registry, services)
    if missing:
        yield from Effect.fail(MissingServiceError(missing))
    around = yield from Effect.env()
    scope = yield from Effect.scope()
    engine = Engine.open(registry, storage, alarms=alarms, polls=polls)
    return (yield from engine.provide_env(around.merge(services).add(Scope, scope)))


class Connection(Generic[E]):
    """``async with jobs.connect(url) as client``: open while the block runs."""

    def __init__(self, opened: Effect[JobsClient, Any, Need[Scope]]) -> None:
        self._opened = opened
        self._scope: Scope | None = None

    async def __aenter__(self) -> JobsClient:
        if self._scope is not None:
            raise RuntimeError("this connection is open already: call connect() for another one")
        scope = self._scope = await Scope.make()
        try:
            return await scope.extend(self._opened)
        except BaseException as error:
            self._scope = None
            await scope.close(_died(error))
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        scope, self._scope = self._scope, None
        if scope is not None:
            await scope.close(Success(None) if error is None else _died(error))


def _died(error: BaseException) -> Exit[Never, Never]:
    return Failure(Cause.die(error))


@overload
def create_durable_jobs(
    definitions: Mapping[str, Job[Any, Never]],
    *,
    layer: None = None,
    tracker: Tracker | None = None,
    limits: Limits = ...,
) -> DurableJobs: ...
# The function among the definitions stands for nothing at run time. It makes mypy look at the layer first and
# then hold each definition against what that provides, where it would join all that they need to `object`.
@overload
def create_durable_jobs(
    definitions: Mapping[str, Job[Any, Services]] | Callable[[Services], Never],
    *,
    layer: Layer[Services, E1, Never],
    tracker: Tracker | None = None,
    limits: Limits = ...,
) -> DurableJobs[E1]: ...
def create_durable_jobs(
    definitions: Any,
    *,
    layer: Layer[Any, Any, Never] | None = None,
    tracker: Tracker | None = None,
    limits: Limits | None = None,
) -> DurableJobs[Any]:
    """Put definitions together under the names that they are stored by.

    ``layer`` provides the services that handlers need: it is built once for each connection and released at
    its end. A service that it does not provide is a type error here, and a ``MissingServiceError`` when
    connecting. ``limits`` bounds states, windows and concurrency.
    """
    check_option(
        "definitions", definitions, Mapping, 'a mapping from names to jobs, such as {"mailer": mailer}'
    )
    check_option("layer", layer, Layer, "a Layer, such as Layer.succeed(Mailer, mailer)")
    check_option("tracker", tracker, Tracker, 'a Tracker, such as Tracker("https://events.example.com")')
    check_option("limits", limits, Limits, "Limits, such as Limits(concurrency=10)")
    registry = Registry(
        definitions,
        limits=limits or Limits(),
        telemetry=tracker is not None,
        include_state=tracker is not None and tracker.include_state,
    )
    return DurableJobs(registry, layer if layer is not None else Layer.empty(), tracker)
