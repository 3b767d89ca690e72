"""What a program can ask of the fiber that runs it: one small class for each operation.

An operation is an effect itself and describes only; it may run many times. While one runs, it can stay on the
fiber's stack as a *frame*, until what it waits for has ended. So a class here may have

- `__iter__`: how `yield from` treats it. Leaves finish in place, without a word to the interpreter;
- `step(fiber)`: begin. Answers the next effect to run, or None when the fiber is to be suspended;
- `on_value(fiber, value)`: as a frame, what happens after a success; answers the next effect;
- `on_cause(fiber, cause)`: as a frame, what happens after a failure; answers the next effect.

Two things on the stack are no operations: the generator of a do-block, and an `Env`, which is the environment
to go back to.

The hottest ones (`Succeed`, `Sync`, `FlatMap`, `Map`, `CatchAll`, `Gen`, `FailWith`) lack some of these: the
interpreter's loop knows them by their type.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextvars import ContextVar
from inspect import CO_GENERATOR
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Never

from durable_effect.context import Env
from durable_effect.effect import Always, Effect
from durable_effect.errors import MissingServiceError
from durable_effect.exit import Cause, Exit, Failure, Success

if TYPE_CHECKING:
    from durable_effect.runtime import Fiber, Runtime

AnyEffect = Effect[Any, Any, Any]
Steps = Generator[Any, Any, Any]

ACTIVE: ContextVar[Runtime] = ContextVar("durable_effect_runtime")
"""The runtime whose slice is being executed, for the effects that finish in place."""

NATIVE_DEPTH = 32
"""After so many do-blocks that were called as plain generators we look how deep they are inside each other;
those that are deeper than this live on the fiber's own stack. So at most twice as many are ever nested.
"""


# ---- leaves ------------------------------------------------------------------------------------------------


class Succeed(AnyEffect):
    """A value."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __iter__(self) -> Steps:
        return self.value
        yield


class Constant(Always[Any, Any, Any]):
    """A value that also answers itself when called: `Effect.void` and `Effect.void()` are the same."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __iter__(self) -> Steps:
        return self.value
        yield

    def step(self, fiber: Fiber[Any, Any]) -> AnyEffect:
        return Succeed(self.value)


class Sync(AnyEffect):
    """A call."""

    __slots__ = ("thunk",)

    def __init__(self, thunk: Callable[[], Any]) -> None:
        self.thunk = thunk

    def __iter__(self) -> Steps:
        return self.thunk()
        yield


class Suspend(AnyEffect):
    """An effect that is made when it is needed."""

    __slots__ = ("thunk",)

    def __init__(self, thunk: Callable[[], AnyEffect]) -> None:
        self.thunk = thunk

    def step(self, fiber: Fiber[Any, Any]) -> AnyEffect:
        return self.thunk()


class FailWith(AnyEffect):
    """A typed error."""

    __slots__ = ("error", "traceback")

    def __init__(self, error: Any) -> None:
        self.error = error
        # Raising adds to an exception's traceback; every run of this effect starts again from what it was
        # here.
        self.traceback = getattr(error, "__traceback__", None)


class FailCause(AnyEffect):
    """A failure with its whole cause."""

    __slots__ = ("cause",)

    def __init__(self, cause: Cause[Any]) -> None:
        self.cause = cause

    def step(self, fiber: Fiber[Any, Any]) -> Any:
        return fiber.unwind(self.cause)


class FailAgain(AnyEffect):
    """A failure that is kept and may happen many times; its exceptions start each time as they were kept."""

    __slots__ = ("failure",)

    def __init__(self, failure: Failure[Any]) -> None:
        self.failure = failure

    def step(self, fiber: Fiber[Any, Any]) -> Any:
        return fiber.unwind(self.failure.rewound())


class Service(AnyEffect):
    """A service, looked up by its key."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key

    def __iter__(self) -> Steps:
        try:
            return ACTIVE.get().fiber.env.services[self.key]  # type: ignore[union-attr] # pyright: ignore
        except LookupError:
            pass  # and leave this block: what fails later is no consequence of it
        return (yield (self,))

    def step(self, fiber: Fiber[Any, Any]) -> AnyEffect:
        env = fiber.env
        return Succeed(env.services[self.key]) if self.key in env.services else self._default(env)

    def _default(self, env: Env) -> AnyEffect:
        try:
            return Succeed(env.get(self.key))
        except MissingServiceError as missing:
            return FailCause(Cause.die(missing))


class Look(AnyEffect):
    """A value read off the fiber that runs it."""

    __slots__ = ("f",)

    def __init__(self, f: Callable[[Any], Any]) -> None:
        self.f = f

    def __iter__(self) -> Steps:
        return self.f(ACTIVE.get().fiber)
        yield

    def step(self, fiber: Fiber[Any, Any]) -> AnyEffect:
        return Succeed(self.f(fiber))


class WithFiber(AnyEffect):
    """An effect that depends on the fiber that runs it."""

    __slots__ = ("f",)

    def __init__(self, f: Callable[[Any], AnyEffect]) -> None:
        self.f = f

    def step(self, fiber: Fiber[Any, Any]) -> AnyEffect:
        return self.f(fiber)


# ---- sequences ---------------------------------------------------------------------------------------------


class Map(AnyEffect):
    """A function applied to the value."""

    __slots__ = ("f", "first")

    def __init__(self, first: AnyEffect, f: Callable[[Any], Any]) -> None:
        self.first = first
        self.f = f

    def __iter__(self) -> Steps:
        if type(self.first) in LEAVES:
            return self.f((yield from self.first))
        return (yield (self,))


class FlatMap(AnyEffect):
    """An effect that depends on the value."""

    __slots__ = ("f", "first")

    def __init__(self, first: AnyEffect, f: Callable[[Any], AnyEffect]) -> None:
        self.first = first
        self.f = f

    def __iter__(self) -> Steps:
        if type(self.first) in LEAVES:
            after = self.f((yield from self.first))
            if type(after) in LEAVES:
                return (yield from after)
            return (yield (after,))
        return (yield (self,))


LEAVES = frozenset({Succeed, Constant, Sync, Service, Look})


class Gen(AnyEffect):
    """A do-block. Every run calls the generator function anew."""

    __slots__ = ("args", "function")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.function = function
        self.args = args

    def __iter__(self) -> Steps:
        fiber: Any = ACTIVE.get().fiber
        fiber.depth += 1
        if fiber.depth > NATIVE_DEPTH:
            if too_deep():
                return bounce(self)
            fiber.depth = 0
        block: Steps = self.function(*self.args)
        return block if isinstance(block, GeneratorType) else self.refuse(block)

    def refuse(self, block: object) -> Never:
        """Explain a do-block that is no generator."""
        raise TypeError(no_generator(self.function, block))


def bounce(effect: AnyEffect) -> Steps:
    """Hand the effect to the interpreter instead of running it inside the calling do-block."""
    return (yield (effect,))


def too_deep() -> bool:
    """Answer whether `NATIVE_DEPTH` do-blocks run inside each other right now; seldom also when fewer do.

    They are neighbours on Python's stack, down to the interpreter's loop, which is no generator.
    """
    try:
        frame = sys._getframe(1 + NATIVE_DEPTH)  # pyright: ignore[reportPrivateUsage]
    except ValueError:
        return False
    return bool(frame.f_code.co_flags & CO_GENERATOR)


def no_generator(fn: Callable[..., Any], answer: object) -> str:
    """Explain a do-block without `yield from`."""
    name = getattr(getattr(fn, "func", fn), "__qualname__", repr(fn))
    if isinstance(answer, Effect):
        return f"@Effect.gen: {name} returned an effect; write `return (yield from ...)`, or drop @Effect.gen"
    return f"@Effect.gen: {name} needs a generator function: write at least one `yield from effect` in it"


def not_an_effect(value: object) -> str:
    """Explain a value that is no effect where one was expected."""
    return f"expected an Effect, got {value!r}: wrap a plain value in Effect.succeed(...)"


def bare_yield(item: object) -> str:
    """Explain a `yield` without `from`."""
    what = "an effect" if isinstance(item, Effect) else repr(item)
    return f"bare `yield` of {what} in a do-block: write `yield from effect`"


class Forever(AnyEffect):
    """The same again and again, until it fails."""

    __slots__ = ("first",)

    def __init__(self, first: AnyEffect) -> None:
        self.first = first

    def step(self, fiber: Fiber[Any, Any]) -> AnyEffect:
        fiber.stack.append(self)
        return self.first

    def on_value(self, fiber: Fiber[Any, Any], value: object) -> AnyEffect:
        fiber.stack.append(self)
        return self.first

    def on_cause(self, fiber: Fiber[Any, Any], cause: Cause[Any]) -> AnyEffect:
        return FailCause(cause)


# ---- failures ----------------------------------------------------------------------------------------------


class CatchAll(AnyEffect):
    """A handler for the typed error."""

    __slots__ = ("f", "first")

    def __init__(self, first: AnyEffect, f: Callable[[Any], AnyEffect]) -> None:
        self.first = first
        self.f = f

    def on_cause(self, fiber: Fiber[Any, Any], cause: Cause[Any]) -> AnyEffect:
        if fiber.striking:
            return FailCause(fiber.skip_recovery(cause))
        for error in cause.recoverable():
            return self.f(error)
        return FailCause(cause)


class Fold(AnyEffect):
    """A handler for the cause, and one for the value."""

    __slots__ = ("first", "on_failure", "on_success")

    def __init__(
        self, first: AnyEffect, on_failure: Callable[[Any], AnyEffect], on_success: Callable[[Any], AnyEffect]
    ) -> None:
        self.first = first
        self.on_failure = on_failure
        self.on_success = on_success

    def step(self, fiber: Fiber[Any, Any]) -> AnyEffect:
        fiber.stack.append(self)
        return self.first

    def on_value(self, fiber: Fiber[Any, Any], value: Any) -> AnyEffect:
        return self.on_success(value)

    def on_cause(self, fiber: Fiber[Any, Any], cause: Cause[Any]) -> AnyEffect:
        if fiber.striking:
            return FailCause(fiber.skip_recovery(cause))
        return self.on_failure(cause)


class MapError(AnyEffect):
    """A function applied to every typed error."""

    __slots__ = ("f", "first")

    def __init__(self, first: AnyEffect, f: Callable[[Any], Any]) -> None:
        self.first = first
        self.f = f

    def step(self, fiber: Fiber[Any, Any]) -> AnyEffect:
        fiber.stack.append(self)
        return self.first

    def on_value(self, fiber: Fiber[Any, Any], value: Any) -> AnyEffect:
        return Succeed(value)

    def on_cause(self, fiber: Fiber[Any, Any], cause: Cause[Any]) -> AnyEffect:
        return FailCause(cause.map(self.f))


# ---- finalizers, interruption and services: operations that change the fiber and put it back ---------------


class OnExit(AnyEffect):
    """A finalizer: it runs whatever happens, and nothing interrupts it."""

    __slots__ = ("finalizer", "first")

    def __init__(self, first: AnyEffect, finalizer: Callable[[Exit[Any, Any]], AnyEffect | None]) -> None:
        self.first = first
        self.finalizer = finalizer

    def step(self, fiber: Fiber[Any, Any]) -> AnyEffect:
        fiber.stack.append(self)
        return self.first

    def on_value(self, fiber: Fiber[Any, Any], value: Any) -> AnyEffect:
        last = self.finalizer(Success(value))
        if last is None:
            return Succeed(value)
        if type(last) is Sync:
            last.thunk()
            return Succeed(value)
        return finalize(fiber, last, Success(value))

    def on_cause(self, fiber: Fiber[Any, Any], cause: Cause[Any]) -> AnyEffect:
        try:
            last = self.finalizer(Failure(cause))
        except BaseException as raised:
            return FailCause(cause.combine(Cause.die(raised)))
        if last is None:
            return FailCause(cause)
        return finalize(fiber, last, Failure(cause))


class Ensuring(AnyEffect):
    """A finalizer that does not ask how it ended."""

    __slots__ = ("finalizer", "first")

    def __init__(self, first: AnyEffect, finalizer: AnyEffect) -> None:
        self.first = first
        self.finalizer = finalizer

    def step(self, fiber: Fiber[Any, Any]) -> AnyEffect:
        fiber.stack.append(self)
        return self.first

    def on_value(self, fiber: Fiber[Any, Any], value: Any) -> AnyEffect:
        last = self.finalizer
        if type(last) is Sync:
            last.thunk()
            return Succeed(value)
        return finalize(fiber, last, Success(value))

    def on_cause(self, fiber: Fiber[Any, Any], cause: Cause[Any]) -> AnyEffect:
        return finalize(fiber, self.finalizer, Failure(cause))


def finalize(fiber: Fiber[Any, Any], last: AnyEffect, outcome: Exit[Any, Any]) -> AnyEffect:
    """Begin a finalizer, which nothing interrupts; after it the fiber goes on with the outcome."""
    fiber.stack.append(AfterFinalizer(outcome, fiber.interruptible))
    fiber.interruptible = False
    return last


class AfterFinalizer:
    """Frame: back to how it was before the finalizer, and on with the outcome."""

    __slots__ = ("interruptible", "outcome")

    def __init__(self, outcome: Exit[Any, Any], interruptible: bool) -> None:
        self.outcome = outcome
        self.interruptible = interruptible

    def on_value(self, fiber: Fiber[Any, Any], value: object) -> AnyEffect:
        fiber.interruptible = self.interruptible
        outcome = self.outcome
        if isinstance(outcome, Success):
            return fiber.strike_or(Succeed(outcome.value))
        return FailCause(outcome.cause)

    def on_cause(self, fiber: Fiber[Any, Any], cause: Cause[Any]) -> AnyEffect:
        fiber.interruptible = self.interruptible
        outcome = self.outcome
        return FailCause(cause if isinstance(outcome, Success) else outcome.cause.combine(cause))


class Interruptibility(AnyEffect):
    """A region that can, or cannot, be interrupted."""

    __slots__ = ("allowed", "first")

    def __init__(self, first: AnyEffect, interruptible: bool) -> None:
        self.first = first
        self.allowed = interruptible

    def step(self, fiber: Fiber[Any, Any]) -> AnyEffect:
        if fiber.interruptible is self.allowed:
            return self.first
        fiber.stack.append(RestoreInterruptible(fiber.interruptible))
        fiber.interruptible = self.allowed
        return fiber.strike_or(self.first)


class RestoreInterruptible:
    """Frame: the end of such a region. A pending interruption strikes here."""

    __slots__ = ("before",)

    def __init__(self, before: bool) -> None:
        self.before = before

    def on_value(self, fiber: Fiber[Any, Any], value: object) -> AnyEffect:
        fiber.interruptible = self.before
        return fiber.strike_or(Succeed(value))

    def on_cause(self, fiber: Fiber[Any, Any], cause: Cause[Any]) -> AnyEffect:
        fiber.interruptible = self.before
        return FailCause(cause)


class Unwinding(RestoreInterruptible):
    """Frame under a do-block that an interruption ends: it goes on, whatever the do-block does."""

    __slots__ = ("cause",)

    def __init__(self, cause: Cause[Any]) -> None:
        super().__init__(before=True)
        self.cause = cause

    def on_value(self, fiber: Fiber[Any, Any], value: object) -> AnyEffect:
        fiber.interruptible = self.before
        return FailCause(self.cause)

    def on_cause(self, fiber: Fiber[Any, Any], cause: Cause[Any]) -> AnyEffect:
        fiber.interruptible = self.before
        return FailCause(self.cause.combine(cause))


class Provide(AnyEffect):
    """A program with another environment."""

    __slots__ = ("first", "update")

    def __init__(self, first: AnyEffect, update: Callable[[Env], Env]) -> None:
        self.first = first
        self.update = update

    def step(self, fiber: Fiber[Any, Any]) -> AnyEffect:
        before = fiber.env
        fiber.env = self.update(before)
        fiber.stack.append(before)
        return self.first


class ProvideEnv(AnyEffect):
    """A program with exactly these services."""

    __slots__ = ("first", "given")

    def __init__(self, first: AnyEffect, given: Env) -> None:
        self.first = first
        self.given = given

    def step(self, fiber: Fiber[Any, Any]) -> AnyEffect:
        fiber.stack.append(fiber.env)
        fiber.env = self.given
        return self.first


class ProvideServices(AnyEffect):
    """A program with more services."""

    __slots__ = ("first", "given")

    def __init__(self, first: AnyEffect, given: Env) -> None:
        self.first = first
        self.given = given

    def step(self, fiber: Fiber[Any, Any]) -> AnyEffect:
        before = fiber.env
        fiber.env = Env({**before.services, **self.given.services})
        fiber.stack.append(before)
        return self.first


# ---- waiting -----------------------------------------------------------------------------------------------


class Wait(AnyEffect):
    """Suspend until `waiter.resume(effect)`.

    `register` answers how to undo the registration on interruption.
    """

    __slots__ = ("register",)

    def __init__(self, register: Callable[[Any], Callable[[], object] | None]) -> None:
        self.register = register

    def step(self, fiber: Fiber[Any, Any]) -> None:
        fiber.on_interrupt = self.register(fiber.suspend())


class Callback(AnyEffect):
    """Suspend until foreign code, on whatever thread, calls back.

    `register` answers an effect that calls it off.
    """

    __slots__ = ("register",)

    def __init__(self, register: Callable[[Callable[[AnyEffect], None]], AnyEffect | None]) -> None:
        self.register = register

    def step(self, fiber: Fiber[Any, Any]) -> None:
        waiter = fiber.suspend()
        runtime = fiber.runtime
        cancel = self.register(lambda effect: runtime.call(waiter.resume, effect))
        if cancel is not None:
            fiber.stack.append(CancelFrame(cancel))


class CancelFrame:
    """Frame: calls a foreign operation off when an interruption comes by."""

    __slots__ = ("cancel",)

    def __init__(self, cancel: AnyEffect) -> None:
        self.cancel = cancel

    def on_value(self, fiber: Fiber[Any, Any], value: object) -> AnyEffect:
        return Succeed(value)

    def on_cause(self, fiber: Fiber[Any, Any], cause: Cause[Any]) -> AnyEffect:
        if not fiber.striking:
            return FailCause(cause)
        return finalize(fiber, self.cancel, Failure(cause))


class Parked(Always[Any, Any, Any]):
    """Wait for nothing: only an interruption ends it."""

    __slots__ = ()

    def step(self, fiber: Fiber[Any, Any]) -> None:
        fiber.suspend()


class YieldNow(AnyEffect):
    """Let the other fibers go first."""

    __slots__ = ()

    def step(self, fiber: Fiber[Any, Any]) -> None:
        fiber.suspend().resume(VOID)


class Settle(AnyEffect):
    """Let all other fibers go on until none of them can."""

    __slots__ = ()

    def step(self, fiber: Fiber[Any, Any]) -> None:
        fiber.runtime.idle.append(fiber.suspend())


VOID = Constant(None)
NEVER = Parked()
