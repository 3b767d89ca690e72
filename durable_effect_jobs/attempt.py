"""One attempt of a handler: what it may change, where its logs go, and how it ended.

A handler changes a *draft*. The draft is written only if the handler ends well, so a failed attempt
leaves no trace. The handler runs in a fiber of its own: ``terminate`` interrupts that fiber, which no
error handling can catch, and what the handler forked ends with it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeAlias, cast

import attrs
from typing_extensions import Never, TypeVar

from durable_effect import Cause, Defect, Do, Effect, Fiber, Logger
from durable_effect.exit import Die, Fail, Failure, Success
from durable_effect_jobs.errors import InvalidStateError, Kind
from durable_effect_jobs.instance import Key
from durable_effect_jobs.step import Codec, Limits

__all__ = [
    "Draft",
    "Ended",
    "Failed",
    "Finished",
    "Inside",
    "Terminated",
    "attempt",
    "inside",
    "job_logger",
    "within",
]

A = TypeVar("A")
E = TypeVar("E")
R = TypeVar("R")
S = TypeVar("S")


@attrs.frozen
class Inside:
    """The handlers around this effect. A call that changes the instance of one that still runs is refused."""

    handlers: tuple[tuple[Key, Draft[Any]], ...] = ()

    @property
    def keys(self) -> frozenset[Key]:
        """Their instances. A fiber detached from a handler may outlive it, and then counts no more."""
        if not self.handlers:
            return _NOBODY
        return frozenset(key for key, draft in self.handlers if draft.running)


_NOBODY: frozenset[Key] = frozenset()
_OUTSIDE = Inside()
_INSIDE: Effect[Inside] = Effect.env().map(lambda env: env.get_or(Inside, _OUTSIDE))


def inside() -> Effect[Inside]:
    """The handlers around this effect; none where nobody says so."""
    return _INSIDE


def within(f: Callable[[Inside], Effect[A, E, R]]) -> Effect[A, E, R]:
    """Go on with what ``f`` answers for the handlers around this effect; both are one step."""
    return Effect.with_fiber(lambda fiber: f(fiber.env.get_or(Inside, _OUTSIDE)))


class Draft(Generic[S]):
    """What one handler has changed so far."""

    __slots__ = ("_codec", "_limits", "encoded", "fiber", "reason", "running", "state", "terminated")

    def __init__(self, codec: Codec[S], limits: Limits, state: S | None, encoded: bytes | None) -> None:
        self._codec = codec
        self._limits = limits
        self.state = state
        self.encoded = encoded
        self.running = False
        self.terminated = False
        self.reason: str | None = None
        self.fiber: Fiber[Any, Any] | None = None

    def write(self, state: S) -> None:
        """Replace the state. A value that does not fit is a defect, raised where the handler wrote it."""
        self.encoded = self._codec.encode(state, self._limits)
        self.state = state

    def rest(self) -> None:
        """No handler works on it any more."""
        self.running = False

    def read(self) -> Effect[Any]:
        """The state as of now, this handler's own changes included."""
        return Effect.sync(lambda: self.state)

    def check_running(self, operation: str) -> None:
        """Refuse what nobody would write: changes by who outlived the handler or kept its context."""
        if not self.running:
            raise InvalidStateError("a handler that is running", "the handler has ended", operation)

    def set(self, state: S) -> Effect[None]:
        """Replace the state."""

        def run() -> None:
            self.check_running("set_state")
            self.write(state)

        return Effect.sync(run)

    def update(self, change: Callable[[S], S]) -> Effect[None]:
        """Replace the state by what ``change`` makes of it; without a state, do nothing."""

        def run() -> None:
            self.check_running("update_state")
            if self.encoded is not None:  # a state may be None and still be one
                self.write(change(cast("S", self.state)))

        return Effect.sync(run)

    def terminate(self, reason: str | None) -> Effect[Never]:
        """End the handler here and now, and the instance with it."""

        def run() -> Effect[Never]:
            self.check_running("terminate")
            self.terminated = True
            self.reason = reason
            handler = cast("Fiber[Any, Any]", self.fiber)
            # This may be another fiber, for which the handler waits where it cannot be interrupted.
            this: Effect[None] = Effect.with_fiber(lambda me: me.interrupt_fork())
            return handler.interrupt_fork().and_then(this).and_then(Effect.never.interruptible())

        return Effect.suspend(run)


@attrs.frozen
class Finished:
    """The handler ended well; ``value`` is what it returned."""

    value: Any


@attrs.frozen
class Failed:
    """The handler failed: ``error`` is its typed error, or the exception that it raised."""

    error: object
    raised: bool

    @property
    def defect(self) -> BaseException | None:
        """The exception that nobody promised to handle, if it was one."""
        return cast("BaseException", self.error) if self.raised else None

    @property
    def as_argument(self) -> object:
        """What ``on_error`` is given: a typed error as it is, a raised exception as a ``Defect``."""
        return Defect(cast("BaseException", self.error)) if self.raised else self.error


@attrs.frozen
class Terminated:
    """The handler called ``terminate``."""

    reason: str | None


Ended: TypeAlias = Finished | Failed | Terminated


def job_logger(kind: Kind, job: str) -> logging.Logger:
    """Where the logs of one job go."""
    return logging.getLogger(f"durable_effect_jobs.{kind}.{job}")


@Effect.gen
def attempt(
    run: Callable[[], Effect[Any, Any, Any] | Generator[Any, Any, Any]],
    draft: Draft[Any],
    key: Key,
    log_level: int,
    **fields: object,
) -> Do[Ended, Never, Any]:
    """Run a handler against a draft; ``fields`` are added to its log records."""
    around = (yield from inside()).handlers
    log = Logger(
        job_logger(key.kind, key.job),
        log_level,
        {"instance_id": key.instance_id, **fields},
    )
    env = yield from Effect.env()
    handler = Effect.suspend(lambda: as_effect(run())).provide_env(
        env.add(Inside, Inside((*around, (key, draft)))).add(Logger, log)
    )
    draft.running = True
    fiber = draft.fiber = yield from handler.fork()
    exit = yield from fiber.await_().on_interrupt(fiber.interrupt).ensuring(Effect.sync(draft.rest))
    if draft.terminated:
        return Terminated(draft.reason)
    match exit:
        case Success(value):
            return Finished(value)
        case Failure(cause):
            return _failed(cause)


def as_effect(result: object) -> Effect[Any, Any, Any]:
    """What a handler returned: an effect, or an undecorated do-block."""
    if isinstance(result, Effect):
        return result  # pyright: ignore[reportUnknownVariableType] - any effect
    if inspect.isgenerator(result):
        return Effect.gen(lambda: cast("Generator[Any, Any, Any]", result))()
    raise TypeError(
        f"a handler returns an Effect or is a do-block, but this one returned {type(result).__name__}"
    )


def _failed(cause: Cause[Any]) -> Failed:
    """A typed failure if that is all there is; a defect beside it is the graver news."""
    for reason in cause.reasons:
        if isinstance(reason, Die):
            return Failed(reason.defect, raised=True)
    for reason in cause.reasons:
        if isinstance(reason, Fail):
            return Failed(reason.error, raised=False)
    return Failed(InterruptedError("the handler interrupted itself"), raised=True)
