"""The one interpreter of effects: a fiber is a program being run, a runtime is what its fibers share.

A fiber has a stack of frames (see `ops`): operations that wait for what they started, and the generators of
do-blocks. `Fiber.advance` is the loop: take the current effect; a leaf has a value, everything else pushes a
frame and names the next effect; a value is delivered to the frame on top; a failure pops frames until one of
them wants it. The stack is a list, so programs may nest as deep as memory allows.

A fiber runs until it is done, is suspended, or has used up its fuel. Whatever resumes a fiber puts it into
the runtime's queue, never into the caller's own stack. The queue is worked off by `Runtime.flush`: called by
the asyncio loop, by `run_sync`, or by a test that holds the clock.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from itertools import count
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Generic, Never, cast

from typing_extensions import TypeVar

from durable_effect import ops
from durable_effect.context import Env
from durable_effect.effect import Effect
from durable_effect.errors import EffectFailure, Interrupted
from durable_effect.exit import Cause, Exit, Fail, Failure, Success, all_void, as_exception
from durable_effect.ops import (
    ACTIVE,
    VOID,
    AfterFinalizer,
    AnyEffect,
    CatchAll,
    FailAgain,
    FailCause,
    FailWith,
    FlatMap,
    Gen,
    Map,
    Service,
    Succeed,
    Sync,
    Unwinding,
    WithFiber,
)

if TYPE_CHECKING:
    from durable_effect.edge import Operation
    from durable_effect.scope import Scope

A = TypeVar("A", covariant=True)
E = TypeVar("E", covariant=True, default=Never)
A1 = TypeVar("A1")
E1 = TypeVar("E1")

FUEL = (None,) * 2048
"""One for each operation before a fiber lets others go on; to iterate is cheaper than to count."""

SLICES = 256
"""Slices before a runtime lets the asyncio loop go on."""

EMPTY = Env()
_next_id = count(1).__next__
_type_of: Callable[[Any], Any] = type


class Waiter:
    """One suspension of one fiber. Only the first `resume` counts, and none after an interruption."""

    __slots__ = ("fiber",)

    def __init__(self, fiber: Fiber[Any, Any]) -> None:
        self.fiber = fiber

    @property
    def gone(self) -> bool:
        """Whether the fiber does not wait for this any more."""
        return self.fiber.waiter is not self

    def resume(self, effect: AnyEffect) -> None:
        """Let the fiber go on with this effect."""
        fiber = self.fiber
        if fiber.waiter is self:
            fiber.waiter = None
            fiber.next = effect
            fiber.runtime.enqueue(fiber)


class Fiber(Generic[A, E]):
    """A running program. `join` its outcome, `await_` its exit, or `interrupt` it."""

    __slots__ = (
        "children",
        "depth",
        "env",
        "exit",
        "id",
        "interruptible",
        "interrupting",
        "next",
        "observers",
        "on_interrupt",
        "parent",
        "runtime",
        "stack",
        "waiter",
    )

    def __init__(self, runtime: Runtime, effect: AnyEffect, env: Env) -> None:
        self.id = _next_id()
        self.runtime = runtime
        self.next: Any = effect
        self.env = env
        self.stack: list[Any] = []
        self.depth = 0
        self.interruptible = True
        self.interrupting: Cause | None = None
        self.waiter: Waiter | None = None
        self.on_interrupt: Callable[[], object] | None = None
        self.parent: Fiber[Any, Any] | None = None
        self.children: set[Fiber[Any, Any]] | None = None
        self.exit: Exit[A, E] | None = None
        self.observers: list[Callable[[Exit[Any, Any]], object]] | None = None

    def __repr__(self) -> str:
        state = "running" if self.exit is None else repr(self.exit)
        return f"<Fiber {self.id} {state}>"

    # ---- what programs do with a fiber ---------------------------------------------------------------------

    def join(self) -> Effect[A, E]:
        """Wait for the fiber and end as it ends."""
        return Join(self, from_exit)

    def await_(self) -> Effect[Exit[A, E]]:
        """Wait for the fiber and answer its exit."""
        return Join(self, Succeed)

    def interrupt(self) -> Effect[None]:
        """Call the fiber off and wait until it has ended, finalizers included."""
        return WithFiber(self._interrupt)

    def interrupt_fork(self) -> Effect[None]:
        """Call the fiber off without waiting for its end."""
        return WithFiber(self._interrupt_fork)

    def poll(self) -> Effect[Exit[A, E] | None]:
        """Answer the fiber's exit, or None while it runs."""
        return Sync(lambda: self.exit)

    @staticmethod
    def interrupt_all(fibers: Iterable[Fiber[Any, Any]]) -> Effect[None]:
        """Call fibers off, all of them first, and then wait until each has ended."""
        return interrupt_all(fibers)

    @staticmethod
    def await_all(fibers: Iterable[Fiber[A1, E1]]) -> Effect[list[Exit[A1, E1]]]:
        """Wait for all these fibers and answer their exits."""
        return Gen(_exits, (fibers,))

    @staticmethod
    def join_all(fibers: Iterable[Fiber[A1, E1]]) -> Effect[list[A1], E1]:
        """Wait for all these fibers and answer their values; if some failed, fail with all their causes."""
        return FlatMap(Gen(_exits, (fibers,)), _values)

    def run_in(self, scope: Scope) -> Effect[Fiber[A, E]]:
        """Have `scope` interrupt the fiber when it closes; in a closed scope that is now."""
        return WithFiber(lambda me: Succeed(scope.keep_fiber(self, me.id)))

    def _interrupt(self, me: Fiber[Any, Any]) -> AnyEffect:
        self.request_interrupt(me.id)
        if self is me:
            return me.strike_or(VOID)
        return Map(Join(self, Succeed), _nothing)

    def _interrupt_fork(self, me: Fiber[Any, Any]) -> AnyEffect:
        self.request_interrupt(me.id)
        return me.strike_or(VOID) if self is me else VOID

    # ---- watching and interrupting from outside of programs ------------------------------------------------

    def observe(self, ended: Callable[[Exit[Any, Any]], object]) -> None:
        """Call `ended` with the exit when the fiber ends, or now if it has."""
        if self.exit is not None:
            ended(self.exit)
        elif self.observers is None:
            self.observers = [ended]
        else:
            self.observers.append(ended)

    def forget(self, ended: Callable[[Exit[Any, Any]], object]) -> None:
        """Take an observer back."""
        if self.observers is not None and ended in self.observers:
            self.observers.remove(ended)

    def request_interrupt(self, by: int | None = None) -> None:
        """Call the fiber off: at once when it waits and may be interrupted, else as soon as it may."""
        if self.exit is not None:
            return
        cause = Cause.interrupt(by)
        self.interrupting = cause if self.interrupting is None else self.interrupting.combine(cause)
        if self.interruptible and self.runtime.fiber is not self:
            self._strike()

    def _strike(self) -> None:
        """Override what a waiting or ready fiber was about to do."""
        undo, self.on_interrupt = self.on_interrupt, None
        if undo is not None:
            undo()
        self.next = FailCause(cast("Cause", self.interrupting))
        if self.waiter is not None:
            self.waiter = None
            self.runtime.enqueue(self)

    # ---- what operations do with the fiber that runs them --------------------------------------------------

    @property
    def striking(self) -> bool:
        """Whether an interruption is on its way through the stack: nothing recovers, only finalizers run."""
        return self.interrupting is not None and self.interruptible

    def strike_or(self, effect: AnyEffect) -> AnyEffect:
        """Go on with `effect`, unless an interruption waits and may strike now."""
        if self.interrupting is not None and self.interruptible:
            return FailCause(self.interrupting)
        return effect

    def skip_recovery(self, cause: Cause[Any]) -> Cause[Any]:
        """Answer what remains of a cause when an interruption passes a handler: no typed errors."""
        rest = Cause(reason for reason in cause.reasons if not isinstance(reason, Fail))
        return rest.combine(cast("Cause", self.interrupting))

    def suspend(self) -> Waiter:
        """Make the waiter with which the fiber will go on."""
        self.waiter = waiter = Waiter(self)
        return waiter

    def adopt(self, child: Fiber[Any, Any]) -> None:
        """Make `child` end when this fiber ends."""
        child.parent = self
        if self.children is None:
            self.children = set()
        self.children.add(child)

    # ---- the interpreter -----------------------------------------------------------------------------------

    def advance(self, typeof: Callable[[Any], Any] = type) -> bool:
        """Run until done, suspended or out of fuel; answer whether it was the fuel."""
        self.on_interrupt = None
        cur: Any = self.next
        self.next = None
        stack = self.stack
        fuel = iter(FUEL)
        while True:
            try:
                for _ in fuel:
                    # Begin `cur`, and what that names in its place, until one has a value at once.
                    while True:
                        kind = typeof(cur)
                        if kind is Succeed:
                            value = cur.value
                            break
                        if kind is Sync:
                            value = cur.thunk()
                            break
                        if kind is FlatMap or kind is Map or kind is CatchAll:
                            stack.append(cur)
                            cur = cur.first
                        elif kind is Gen:
                            block = cur.function(*cur.args)
                            if typeof(block) is not GeneratorType:
                                cur.refuse(block)
                            stack.append(self.depth)
                            stack.append(block)
                            self.depth = 1
                            value = None
                            break
                        elif kind is Service and cur.key in self.env.services:
                            value = self.env.services[cur.key]
                            break
                        elif kind is FailWith:
                            if stack and typeof(stack[-1]) is CatchAll and self.interrupting is None:
                                cur = stack.pop().f(cur.error)
                                continue
                            cur = self._fail(cur)
                            if cur is None:
                                return False
                        else:
                            cur = cur.step(self)
                            if cur is None:
                                return self._suspended()

                    # Deliver the value to the frame on top, until one of them names the next effect.
                    while stack:
                        frame = stack[-1]
                        kind = typeof(frame)
                        if kind is GeneratorType:
                            try:
                                item = frame.send(value)
                            except StopIteration as stop:
                                value = stop.value
                                stack.pop()
                                self.depth = stack.pop()
                                continue
                            cur = item[0] if typeof(item) is tuple else self._bare_yield(item)
                            break
                        stack.pop()
                        if kind is FlatMap:
                            cur = frame.f(value)
                            break
                        if kind is Map:
                            value = frame.f(value)
                        elif kind is Env:
                            self.env = frame
                        elif kind is not CatchAll:
                            cur = frame.on_value(self, value)
                            break
                    else:
                        cur = self._finish(Success(value))
                        if cur is None:
                            return False
                else:
                    self.next = self.strike_or(cur)
                    self.runtime.ready.append(self)
                    return True
            except BaseException as raised:
                cur = self._raised(raised, cur)

    def _suspended(self) -> bool:
        if self.exit is None and self.interrupting is not None and self.interruptible:
            self._strike()
        return False

    def _fail(self, failing: FailWith) -> Any:
        """Find the handler of a typed error; the cause is only made when a frame needs one."""
        stack = self.stack
        error = failing.error
        while stack:
            kind = _type_of(stack[-1])
            if kind is CatchAll and self.interrupting is None:
                return stack.pop().f(error)
            if kind is not FlatMap and kind is not Map:
                break
            stack.pop()
        if isinstance(error, BaseException):
            error.with_traceback(failing.traceback)
        return self.unwind(Cause.fail(error))

    def unwind(self, cause: Cause[Any]) -> Any:
        """Pop frames until one of them goes on after this failure; None when the fiber has ended."""
        stack = self.stack
        while stack:
            frame = stack[-1]
            kind = _type_of(frame)
            if kind is GeneratorType:
                return self._throw(frame, cause)
            stack.pop()
            if kind is FlatMap or kind is Map:
                continue
            if kind is Env:
                self.env = frame
                continue
            try:
                after = frame.on_cause(self, cause)
            except BaseException as raised:
                cause = Cause.die(_trimmed(raised))
                continue
            if type(after) is not FailCause:
                return after
            cause = after.cause
        return self._finish(Failure(cause))

    def _throw(self, block: Generator[Any, Any, Any], cause: Cause[Any]) -> Any:
        """Raise the failure inside a do-block, so that its `except` and `finally` see it."""
        if self.striking:
            # Whatever the do-block does now, in its `finally`, is not interrupted again; then the unwinding
            # goes on.
            self.interruptible = False
            self.stack.insert(-2, Unwinding(cause))
            thrown: BaseException = Interrupted(cause)
        else:
            thrown = _throwable(cause)
        try:
            item = block.throw(thrown)
        except StopIteration as stop:
            self._pop_block()
            return Succeed(stop.value)
        except BaseException as raised:
            self._pop_block()
            return FailCause(_cause_of(_trimmed(raised)))
        return item[0] if _type_of(item) is tuple else self._bare_yield(item)

    def _pop_block(self) -> None:
        self.stack.pop()
        self.depth = self.stack.pop()

    def _raised(self, raised: BaseException, cur: object) -> Any:
        """Make the cause of what user code raised; a do-block that raised has ended and leaves the stack."""
        _trimmed(raised)
        self.waiter = None
        if self.next is not None:  # it raised after it had let the fiber go on
            self.next = None
            self.runtime.ready.remove(self)
        stack = self.stack
        if stack and type(stack[-1]) is GeneratorType and stack[-1].gi_frame is None:
            self._pop_block()
            return FailCause(_cause_of(raised))
        if not isinstance(cur, Effect):
            return FailCause(Cause.die(TypeError(ops.not_an_effect(cur))))
        return FailCause(Cause.die(raised))

    def _bare_yield(self, item: object) -> Any:
        return FailCause(Cause.die(TypeError(ops.bare_yield(item))))

    def _finish(self, outcome: Exit[Any, Any]) -> Any:
        """End; but first the children."""
        if self.children:
            children, self.children = self.children, None
            self.stack.append(AfterFinalizer(outcome, interruptible=False))
            self.interruptible = False
            return interrupt_all(children)
        if self.interrupting is not None and type(outcome) is Failure:
            outcome = Failure(outcome.cause.combine(self.interrupting))
        self.exit = outcome
        parent = self.parent
        if parent is None:
            self.runtime.roots.discard(self)
        else:
            self.parent = None
            if parent.children is not None:
                parent.children.discard(self)
        observers = self.observers
        if observers is not None:
            self.observers = None
            for ended in observers:
                ended(outcome)
        return None


def _nothing(_: object) -> None:
    return None


# ---- exceptions and causes ---------------------------------------------------------------------------------

# A failure that was thrown into a do-block and comes out again is still that failure, not a defect. So a
# thrown exception is marked: True when it is the typed error itself, else with the cause that it stands for.
_MARK = "__effect_cause__"


def _throwable(cause: Cause[Any]) -> BaseException:
    recovered = cause.recoverable()
    thrown = as_exception(recovered[0]) if recovered else cause.squash()
    if isinstance(thrown, Interrupted):
        return Interrupted(cause)
    if len(cause.reasons) > 1 or isinstance(thrown, EffectFailure):
        thrown.__dict__[_MARK] = cause
    elif recovered:
        thrown.__dict__[_MARK] = True
    else:
        thrown.__dict__.pop(_MARK, None)
    return thrown


def _trimmed(raised: BaseException) -> BaseException:
    """Take the interpreter's own frame off a traceback; it would also hold on to the whole fiber."""
    traceback = raised.__traceback__
    if traceback is not None and traceback.tb_next is not None:
        return raised.with_traceback(traceback.tb_next)
    return raised


def _cause_of(raised: BaseException) -> Cause[Any]:
    if isinstance(raised, Interrupted):
        return raised.cause or Cause.interrupt()
    mark = raised.__dict__.get(_MARK)
    if mark is True:
        return Cause.fail(raised)
    return mark or Cause.die(raised)


def from_exit(outcome: Exit[A1, E1]) -> Effect[A1, E1]:
    """Make the effect that ends like this."""
    return Succeed(outcome.value) if isinstance(outcome, Success) else FailAgain(outcome)


# ---- forks -------------------------------------------------------------------------------------------------


class Join(AnyEffect):
    """Wait for the end of a fiber."""

    __slots__ = ("target", "then")

    def __init__(self, target: Fiber[Any, Any], then: Callable[[Exit[Any, Any]], AnyEffect]) -> None:
        self.target = target
        self.then = then

    def step(self, fiber: Fiber[Any, Any]) -> AnyEffect | None:
        target = self.target
        if target.exit is not None:
            return self.then(target.exit)
        fiber.waiter = joiner = _Joiner(fiber, target, self.then)
        fiber.on_interrupt = joiner.leave
        if target.observers is None:
            target.observers = [joiner]
        else:
            target.observers.append(joiner)
        return None


class _Joiner(Waiter):
    """The suspension of a fiber that waits for another one."""

    __slots__ = ("target", "then")

    def __init__(
        self, fiber: Fiber[Any, Any], target: Fiber[Any, Any], then: Callable[[Exit[Any, Any]], AnyEffect]
    ) -> None:
        self.fiber = fiber
        self.target = target
        self.then = then

    def __call__(self, outcome: Exit[Any, Any]) -> None:
        fiber = self.fiber
        if fiber.waiter is self:
            fiber.waiter = None
            fiber.next = self.then(outcome)
            fiber.runtime.enqueue(fiber)

    def leave(self) -> None:
        self.target.forget(self)


class Fork(AnyEffect):
    """Start another fiber: a child of this one, or on its own."""

    __slots__ = ("child", "first", "immediately")

    def __init__(self, first: AnyEffect, child: bool, immediately: bool = False) -> None:
        self.first = first
        self.child = child
        self.immediately = immediately

    def step(self, fiber: Fiber[Any, Any]) -> AnyEffect | None:
        runtime = fiber.runtime
        forked: Fiber[Any, Any] = Fiber(runtime, self.first, fiber.env)
        forked.interruptible = fiber.interruptible
        if self.child:
            fiber.adopt(forked)
        else:
            runtime.roots.add(forked)
        if not self.immediately:
            runtime.ready.append(forked)
            return Succeed(forked)
        fiber.next = Succeed(forked)
        runtime.ready.extendleft((fiber, forked))
        return None


def interrupt_all(fibers: Iterable[Fiber[Any, Any]]) -> AnyEffect:
    """Call fibers off, all of them first, and then wait for each."""

    def ask(me: Fiber[Any, Any]) -> AnyEffect:
        waiting = sorted(fibers, key=lambda fiber: fiber.id)
        for fiber in waiting:
            fiber.request_interrupt(me.id)
        return Map(Gen(_exits, (waiting,)), _nothing)

    return WithFiber(ask)


def _exits(fibers: Iterable[Fiber[Any, Any]]) -> Generator[Any, Any, list[Exit[Any, Any]]]:
    exits: list[Exit[Any, Any]] = []
    for fiber in fibers:
        exits.append((yield from fiber.await_()))
    return exits


def _values(exits: list[Exit[Any, Any]]) -> AnyEffect:
    failed = all_void(exits)
    if isinstance(failed, Failure):
        return FailCause(failed.cause)
    return Succeed([outcome.get() for outcome in exits])


# ---- the runtime -------------------------------------------------------------------------------------------


class Runtime:
    """The queue of ready fibers, and the asyncio loop that drives it.

    Without a loop only `run_ready` drives it.
    """

    __slots__ = (
        "_context",
        "_flushing",
        "_loop",
        "_scheduled",
        "_thread",
        "fiber",
        "idle",
        "operations",
        "ready",
        "roots",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self.ready: deque[Fiber[Any, Any]] = deque()
        self.fiber: Fiber[Any, Any] | None = None
        self.idle: list[Waiter] = []
        self.operations: set[Operation] = set()
        self.roots: set[Fiber[Any, Any]] = set()
        self._flushing = False
        self._scheduled = False
        self._thread = threading.get_ident()
        self._context = contextvars.copy_context() if loop is not None else None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The asyncio loop on which this runtime's fibers run; None in `run_sync`."""
        return self._loop

    @property
    def context(self) -> contextvars.Context:
        """The context variables that were set where the program was run."""
        return contextvars.copy_context() if self._context is None else self._context.copy()

    def start(self, effect: AnyEffect, env: Env) -> Fiber[Any, Any]:
        """Make a fiber that will run `effect`."""
        fiber: Fiber[Any, Any] = Fiber(self, effect, env)
        self.roots.add(fiber)
        self.enqueue(fiber)
        return fiber

    def enqueue(self, fiber: Fiber[Any, Any]) -> None:
        """Let a fiber go on soon."""
        self.ready.append(fiber)
        if not self._flushing:
            self.poke()

    def call(self, f: Callable[..., object], *args: object) -> None:
        """Call `f` on this runtime's thread: now if we are on it, else soon."""
        if self._thread == threading.get_ident():
            f(*args)
        else:
            self.post(f, *args)

    def post(self, f: Callable[..., object], *args: object) -> None:
        """Call `f` on this runtime's thread, from another one. After the end of the program nobody cares."""
        if self._loop is not None and not self._loop.is_closed():
            with suppress(RuntimeError):  # the loop may be closed in this very moment
                self._loop.call_soon_threadsafe(f, *args)

    def poke(self) -> None:
        """Tell the loop that there is something to do."""
        if self._loop is not None and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush, context=self._context)

    def flush(self) -> None:
        """Run what is ready, for a while."""
        self._scheduled = False
        self.run_ready(SLICES)
        if self.ready:
            self.poke()

    def run_ready(self, slices: int | None = None) -> None:
        """Run fibers until none is ready; with a limit, until they have had their share of time."""
        if self._flushing:
            return
        self._flushing = True
        token = ACTIVE.set(self)
        ready = self.ready
        left = slices if slices is not None else -1
        try:
            while ready or (self.idle and self._wake_idle()):
                fiber = self.fiber = ready.popleft()
                tired = fiber.advance()
                left -= 1
                if left == 0 or (tired and slices is not None):
                    return
        finally:
            self.fiber = None
            self._flushing = False
            ACTIVE.reset(token)

    @property
    def quiet(self) -> bool:
        """Whether nothing goes on without a clock: no fiber is ready, no asyncio work is under way."""
        return not self.ready and all(operation.nested for operation in self.operations)

    def _wake_idle(self) -> bool:
        if not self.idle or not self.quiet:
            return False
        self.idle.pop(0).resume(VOID)
        return bool(self.ready) or self._wake_idle()
