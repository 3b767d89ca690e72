"""Typed errors: values that can also be raised."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import attrs
import pytest

from durable_effect import Defect, Effect, MissingServiceError, TypedError


@attrs.frozen
class UserNotFound(TypedError):
    """No such user."""

    user_id: str


@attrs.frozen
class Refused(TypedError):
    """Says itself what it means."""

    reason: str

    @property
    def message(self) -> str:
        return f"refused: {self.reason}"


@attrs.frozen(kw_only=True)
class Detailed(TypedError):
    """With private, computed and unhashable fields."""

    _code: int
    tags: list[str] = attrs.field(factory=list)
    label: str = attrs.field(init=False, default="x")


@attrs.define(slots=False)
class WithText(TypedError):
    """With a `__str__` of its own."""

    n: int

    def __str__(self) -> str:
        return f"number {self.n}"


class Plain(TypedError):
    """Without attrs."""


def test_equal_by_class_and_fields() -> None:
    """Two errors are equal when their class and fields are, and then hash alike."""
    assert UserNotFound("a") == UserNotFound("a") != UserNotFound("b")
    assert UserNotFound("a") != Refused("a")
    assert hash(UserNotFound("a")) == hash(UserNotFound("a"))
    assert Plain(1) == Plain(1) != Plain(2)
    assert {Detailed(code=1, tags=["a"]), Detailed(code=1, tags=["a"])} == {Detailed(code=1, tags=["a"])}


def test_the_message_names_the_fields() -> None:
    """Unless the class says it otherwise."""
    assert str(UserNotFound("u1")) == "user_id='u1'"
    assert repr(UserNotFound("u1")) == "UserNotFound(user_id='u1')"
    assert str(Refused("late")) == "refused: late"
    assert str(WithText(3)) == "number 3"
    assert str(Plain("text")) == "text"


def test_can_be_raised_and_chained() -> None:
    """Frozen as it is, an error takes traceback and cause like any exception."""

    def fail() -> None:
        try:
            raise ValueError("why")
        except ValueError as why:
            raise UserNotFound("u1") from why

    with pytest.raises(UserNotFound) as caught:
        fail()
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.__traceback__ is not None


@pytest.mark.parametrize(
    "error", [UserNotFound("a"), Refused("r"), Detailed(code=3, tags=["t"]), WithText(2), Plain("p", 1)]
)
def test_can_be_copied_and_pickled(error: TypedError) -> None:
    """Copies are equal, of the same class, and say the same."""
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert twin == error
        assert str(twin) == str(error)


def test_can_be_copied_after_it_was_thrown() -> None:
    """Having passed through a do-block leaves nothing behind that a copy would carry."""
    error = UserNotFound("a")

    @Effect.gen
    def block() -> Any:
        yield from Effect.fail(error)

    Effect.run_sync_exit(block())
    assert pickle.loads(pickle.dumps(error)) == error


def test_a_defect_is_a_value_around_an_exception() -> None:
    """It gives the exception back, and is equal to another one around the same."""
    raised = ValueError("no")
    assert Defect(raised).exception is raised
    assert Defect(raised) == Defect(raised)
    assert "ValueError('no')" in str(Defect(raised))


def test_missing_services_are_named() -> None:
    """The message lists them."""
    assert "Users, Mail" in str(MissingServiceError(("Users", "Mail")))
