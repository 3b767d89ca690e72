"""Exit and Cause: how a program ended, and why.

An `Exit` is `Success(value)` or `Failure(cause)`. A `Cause` is a flat, ordered tuple of reasons:
`Fail(error)` for a typed error, `Die(defect)` for a raised exception, `Interrupt(fiber_id)` for work that was
called off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from traceback import format_exception
from typing import Any, Generic, Literal, Never, cast, final

import attrs
from returns.maybe import Maybe, Nothing, Some
from returns.result import Failure as ResultFailure
from returns.result import Result
from returns.result import Success as ResultSuccess
from typing_extensions import TypeAliasType, TypeVar

from durable_effect.errors import Defect, EffectFailure, Interrupted

A = TypeVar("A", covariant=True)
E = TypeVar("E", covariant=True, default=Never)
B = TypeVar("B")
E2 = TypeVar("E2")
A1 = TypeVar("A1")


@final
@attrs.define(unsafe_hash=True)
class Fail(Generic[A]):
    """A typed error."""

    error: A


@final
@attrs.define(unsafe_hash=True)
class Die:
    """An exception that somebody raised."""

    defect: BaseException


@final
@attrs.define(unsafe_hash=True)
class Interrupt:
    """The work was called off, by the fiber with this id (None: from outside any fiber)."""

    fiber_id: int | None = None


@final
class Cause(Generic[E]):
    """Why a program failed: every reason, in the order in which they happened."""

    __match_args__ = ("reasons",)
    __slots__ = ("reasons",)

    def __init__(self, reasons: Iterable[Fail[E] | Die | Interrupt] = ()) -> None:
        self.reasons: tuple[Fail[E] | Die | Interrupt, ...] = tuple(reasons)

    @staticmethod
    def fail(error: A1) -> Cause[A1]:
        """Make a cause of one typed error."""
        return Cause((Fail(error),))

    @staticmethod
    def die(defect: BaseException) -> Cause:
        """Make a cause of one raised exception."""
        return Cause((Die(defect),))

    @staticmethod
    def interrupt(fiber_id: int | None = None) -> Cause:
        """Make a cause of one interruption."""
        return Cause((Interrupt(fiber_id),))

    @staticmethod
    def empty() -> Cause:
        """Make a cause without any reason."""
        return Cause()

    @property
    def is_empty(self) -> bool:
        """Whether there is no reason at all."""
        return not self.reasons

    @property
    def has_fails(self) -> bool:
        """Whether a typed error is among the reasons."""
        return self.find_fail() is not None

    @property
    def has_dies(self) -> bool:
        """Whether a raised exception is among the reasons."""
        return self.find_die() is not None

    @property
    def has_interrupts(self) -> bool:
        """Whether an interruption is among the reasons."""
        return self.find_interrupt() is not None

    def find_fail(self) -> Fail[E] | None:
        """Answer the first reason that is a typed error, or None."""
        return next((reason for reason in self.reasons if isinstance(reason, Fail)), None)

    def find_error(self) -> E | None:
        """Answer the first typed error, or None; where None may be an error, ask `find_fail`."""
        return next(iter(self.failures), None)

    def find_die(self) -> Die | None:
        """Answer the first reason that is a raised exception, or None."""
        return next((reason for reason in self.reasons if isinstance(reason, Die)), None)

    def find_defect(self) -> BaseException | None:
        """Answer the first raised exception, or None."""
        return next(iter(self.defects), None)

    def find_interrupt(self) -> Interrupt | None:
        """Answer the first reason that is an interruption, or None."""
        return next((reason for reason in self.reasons if isinstance(reason, Interrupt)), None)

    @property
    def interruptors(self) -> frozenset[int]:
        """The ids of the fibers that called the work off."""
        by = (reason.fiber_id for reason in self.reasons if isinstance(reason, Interrupt))
        return frozenset(fiber_id for fiber_id in by if fiber_id is not None)

    @property
    def failures(self) -> tuple[E, ...]:
        """The typed errors."""
        return tuple(reason.error for reason in self.reasons if isinstance(reason, Fail))

    @property
    def defects(self) -> tuple[BaseException, ...]:
        """The raised exceptions."""
        return tuple(reason.defect for reason in self.reasons if isinstance(reason, Die))

    @property
    def is_interrupted_only(self) -> bool:
        """Whether there are reasons and all of them are interruptions."""
        return bool(self.reasons) and all(isinstance(reason, Interrupt) for reason in self.reasons)

    def exceptions(self) -> Iterable[BaseException]:
        """Answer the defects, and the typed errors that are exceptions."""
        for reason in self.reasons:
            if isinstance(reason, Die):
                yield reason.defect
            elif isinstance(reason, Fail) and isinstance(reason.error, BaseException):
                yield reason.error

    def combine(self, other: Cause[E2]) -> Cause[E | E2]:
        """Join two causes, without repetitions. Defects win: next to one, typed errors are defects too."""
        return Cause.combine_all((self, other))

    @staticmethod
    def combine_all(causes: Iterable[Cause[A1]]) -> Cause[A1]:
        """Join any number of causes, as `combine` does two."""
        some = [cause for cause in causes if cause.reasons]
        if len(some) == 1:
            return some[0]
        reasons = [reason for cause in some for reason in cause.reasons]
        if any(isinstance(reason, Die) for reason in reasons):
            reasons = [Die(as_exception(r.error)) if isinstance(r, Fail) else r for r in reasons]
        return Cause(_once_each(reasons))

    def map(self, f: Callable[[E], E2]) -> Cause[E2]:
        """Change the typed errors; defects and interruptions stay."""
        return Cause(Fail(f(r.error)) if isinstance(r, Fail) else r for r in self.reasons)

    def recoverable(self) -> tuple[E, ...]:
        """Answer the first typed error in a tuple; empty when there is none, or a defect bars the way."""
        first: tuple[E, ...] = ()
        for reason in self.reasons:
            if isinstance(reason, Die):
                return ()
            if isinstance(reason, Fail) and not first:
                first = (reason.error,)
        return first

    def error(self) -> E | Defect | None:
        """Answer the typed error, or `Defect(exception)`; None when it was only interrupted."""
        for failure in self.recoverable():
            return failure
        for defect in self.defects:
            return Defect(defect)
        return None

    def squash(self) -> BaseException:
        """Answer the exception to raise for it: the first error, else the first defect, or `Interrupted`."""
        for failure in self.failures:
            return as_exception(failure)
        for defect in self.defects:
            return defect
        return Interrupted(self)

    def pretty_errors(self) -> list[BaseException]:
        """Answer an exception for every reason but interruptions, in order."""
        return [
            as_exception(reason.error) if isinstance(reason, Fail) else reason.defect
            for reason in self.reasons
            if not isinstance(reason, Interrupt)
        ]

    def to_exception_group(self, message: str = "several things went wrong") -> BaseExceptionGroup:
        """Answer all errors and defects as one group to raise; if there is nothing else, the interruption.

        A group holds at least one exception: an empty cause is a `ValueError`.
        """
        raised = self.pretty_errors() or [Interrupted(self) for _ in self.reasons[:1]]
        if not raised:
            raise ValueError("an empty cause has nothing that could be raised")
        return BaseExceptionGroup(message, raised)

    def pretty(self) -> str:
        """Tell it for people: every reason, with the tracebacks of the exceptions."""
        return "\n".join(_told(reason) for reason in self.reasons)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cause) and self.reasons == other.reasons  # pyright: ignore[reportUnknownMemberType]

    def __hash__(self) -> int:
        return hash(self.reasons)

    def __repr__(self) -> str:
        return f"Cause({', '.join(repr(reason) for reason in self.reasons)})"


def _told(reason: Fail[Any] | Die | Interrupt) -> str:
    match reason:
        case Fail(error) if not isinstance(error, BaseException):
            return f"failed: {error!r}"
        case Fail(raised) | Die(raised):
            return "".join(format_exception(raised)).rstrip()
        case Interrupt(None):
            return "interrupted"
        case Interrupt(fiber_id):
            return f"interrupted by fiber {fiber_id}"


def _once_each(reasons: list[A1]) -> Iterable[A1]:
    try:
        return dict.fromkeys(reasons)
    except TypeError:  # an error that cannot be hashed
        once: list[A1] = []
        for reason in reasons:
            if reason not in once:
                once.append(reason)
        return once


def as_exception(error: object) -> BaseException:
    """Answer an error as something that can be raised."""
    return error if isinstance(error, BaseException) else EffectFailure(error)


@final
class Success(Generic[A]):
    """The program ended with `value`."""

    __match_args__ = ("value",)
    __slots__ = ("value",)

    def __init__(self, value: A) -> None:
        self.value: A = value

    @property
    def is_success(self) -> Literal[True]:
        """Whether it ended well: yes."""
        return True

    def get(self) -> A:
        """Answer the value."""
        return self.value

    def map(self, f: Callable[[A], B]) -> Success[B]:
        """Change the value."""
        return Success(f(self.value))

    def map_error(self, f: Callable[[Any], object]) -> Success[A]:
        """Answer itself: there is no error to change."""
        return self

    def map_both(self, on_error: Callable[[Any], object], on_value: Callable[[A], B]) -> Success[B]:
        """Change the value."""
        return self.map(on_value)

    def as_void(self) -> Success[None]:
        """Forget the value."""
        return Success(None)

    def fold(self, on_failure: Callable[[Cause[Any]], B], on_success: Callable[[A], B]) -> B:
        """Make one thing of both outcomes."""
        return on_success(self.value)

    def to_result(self) -> Result[A, Never]:
        """Answer it as `returns.result.Success`."""
        return ResultSuccess(self.value)

    def to_maybe(self) -> Maybe[A]:
        """Answer it as `returns.maybe.Some`."""
        return Some(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Success) and bool(self.value == cast("Success[object]", other).value)

    def __hash__(self) -> int:
        return hash((Success, self.value))

    def __repr__(self) -> str:
        return f"Success({self.value!r})"


@final
class Failure(Generic[E]):
    """The program failed, for the reasons in `cause`."""

    __match_args__ = ("cause",)
    __slots__ = ("_tracebacks", "cause")

    def __init__(self, cause: Cause[E]) -> None:
        self.cause: Cause[E] = cause
        self._tracebacks = [(raised, raised.__traceback__) for raised in cause.exceptions()]

    def rewound(self) -> Cause[E]:
        """Answer the cause, to be raised again: its exceptions have the tracebacks that they had here.

        Raising adds to an exception's traceback; without this a failure that is kept would grow with every
        use.
        """
        for raised, traceback in self._tracebacks:
            raised.__traceback__ = traceback
        return self.cause

    @property
    def is_success(self) -> Literal[False]:
        """Whether it ended well: no."""
        return False

    def get(self) -> Never:
        """Raise what went wrong: a typed error as itself, a defect as the exception that was raised.

        When several things did, as in children that failed together, they are raised as one `ExceptionGroup`.
        """
        cause = self.rewound()
        raise cause.to_exception_group() if len(cause.pretty_errors()) > 1 else cause.squash()

    def map(self, f: Callable[[Any], object]) -> Failure[E]:
        """Answer itself: there is no value to change."""
        return self

    def map_error(self, f: Callable[[E], E2]) -> Failure[E2]:
        """Change the typed errors."""
        return Failure(self.cause.map(f))

    def map_both(self, on_error: Callable[[E], E2], on_value: Callable[[Any], object]) -> Failure[E2]:
        """Change the typed errors."""
        return self.map_error(on_error)

    def as_void(self) -> Failure[E]:
        """Answer itself: there is no value to forget."""
        return self

    def fold(self, on_failure: Callable[[Cause[E]], B], on_success: Callable[[Any], B]) -> B:
        """Make one thing of both outcomes."""
        return on_failure(self.cause)

    def to_result(self) -> Result[Any, BaseException]:
        """Answer it as `returns.result.Failure` of the exception that `get` would raise."""
        return ResultFailure(self.cause.squash())

    def to_maybe(self) -> Maybe[Any]:
        """Answer `returns.maybe.Nothing`."""
        return Nothing

    def __reduce__(self) -> tuple[Any, ...]:
        return Failure, (self.cause,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Failure) and self.cause == other.cause  # pyright: ignore[reportUnknownMemberType]

    def __hash__(self) -> int:
        return hash((Failure, self.cause))

    def __repr__(self) -> str:
        return f"Failure({self.cause!r})"


_ExitA = TypeVar("_ExitA")
_ExitE = TypeVar("_ExitE", default=Never)
Exit = TypeAliasType("Exit", Success[_ExitA] | Failure[_ExitE], type_params=(_ExitA, _ExitE))
"""How a program ended: `Success(value)` or `Failure(cause)`."""


def all_void(exits: Iterable[Success[Any] | Failure[E2]]) -> Success[None] | Failure[E2]:
    """Answer `Success(None)` if all ended well; else one failure with the causes of all that did not."""
    cause = Cause.combine_all(outcome.cause for outcome in exits if isinstance(outcome, Failure))
    return Failure(cause) if cause.reasons else Success(None)
