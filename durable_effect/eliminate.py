"""Taking exactly one error out of `E`, or one service out of `R`: functions that are applied to an effect.

`effect.pipe(catch(NotFound, handler))` and `effect | catch(NotFound, handler)` are the same. They cannot be
methods: the checkers would solve the union before they look at the member that goes. For the same reason
every signature says first what happens when nothing remains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Never, final, overload

from typing_extensions import TypeVar

from durable_effect.context import Key, Need
from durable_effect.effect import Effect
from durable_effect.layer import Layer, provide_layer, provide_to_layer
from durable_effect.ops import AnyEffect, CatchAll, FailWith, ProvideServices

A1 = TypeVar("A1")
A2 = TypeVar("A2")
E1 = TypeVar("E1")
E2 = TypeVar("E2")
E3 = TypeVar("E3")
R1 = TypeVar("R1")
R3 = TypeVar("R3")
O1 = TypeVar("O1")
Out = TypeVar("Out")
T = TypeVar("T")
Err1 = TypeVar("Err1", bound=Exception)
Err2 = TypeVar("Err2", bound=Exception)
Err3 = TypeVar("Err3", bound=Exception)


@final
class Catch(Generic[E1, A2, E3, R3]):
    """Takes `E1` out of an effect's errors."""

    __slots__ = ("_error", "_handler")

    def __init__(self, error: Any, handler: Callable[[Any], Effect[A2, E3, R3]]) -> None:
        self._error = error
        self._handler = handler

    @overload
    def __call__(self, effect: Effect[A1, E1, R1], /) -> Effect[A1 | A2, E3, R1 | R3]: ...
    @overload
    def __call__(self, effect: Effect[A1, E1 | E2, R1], /) -> Effect[A1 | A2, E2 | E3, R1 | R3]: ...
    def __call__(self, effect: AnyEffect, /) -> AnyEffect:
        """Apply the handler to an effect."""
        wanted, handler = self._error, self._handler
        return CatchAll(effect, lambda e: handler(e) if isinstance(e, wanted) else FailWith(e))

    @overload
    def __ror__(self, effect: Effect[A1, E1, R1], /) -> Effect[A1 | A2, E3, R1 | R3]: ...
    @overload
    def __ror__(self, effect: Effect[A1, E1 | E2, R1], /) -> Effect[A1 | A2, E2 | E3, R1 | R3]: ...
    def __ror__(self, effect: AnyEffect, /) -> AnyEffect:
        return self(effect)


@overload
def catch(error: type[E1], handler: Callable[[E1], Effect[A2, E3, R3]], /) -> Catch[E1, A2, E3, R3]: ...
@overload
def catch(
    error: tuple[type[Err1], type[Err2]], handler: Callable[[Err1 | Err2], Effect[A2, E3, R3]], /
) -> Catch[Err1 | Err2, A2, E3, R3]: ...
@overload
def catch(
    error: tuple[type[Err1], type[Err2], type[Err3]],
    handler: Callable[[Err1 | Err2 | Err3], Effect[A2, E3, R3]],
    /,
) -> Catch[Err1 | Err2 | Err3, A2, E3, R3]: ...
def catch(error: Any, handler: Callable[[Any], AnyEffect], /) -> Catch[Any, Any, Any, Any]:
    """Handle one type of error, or some of them, and no other: `effect | catch(NotFound, handler)`."""
    return Catch(error, handler)


@final
class on(Generic[E1]):
    """The same as `catch`, in two steps: the error's type is known before a lambda is looked at."""

    __slots__ = ("_error",)

    def __init__(self, error: type[E1], /) -> None:
        self._error = error

    def __call__(self, handler: Callable[[E1], Effect[A2, E3, R3]], /) -> Catch[E1, A2, E3, R3]:
        """Answer what takes the error out of an effect."""
        return Catch(self._error, handler)


@final
class provide(Generic[Out, E3, R3]):
    """Give an effect, or another layer, what this layer provides: `effect | provide(layer)`.

    What a `provide` around has built of the layer is shared, unless `local`.
    """

    __slots__ = ("_layer", "_local")

    def __init__(self, layer: Layer[Out, E3, R3], /, *, local: bool = False) -> None:
        self._layer = layer
        self._local = local

    @overload
    def __call__(self, target: Effect[A1, E1, Out], /) -> Effect[A1, E1 | E3, R3]: ...
    @overload
    def __call__(self, target: Effect[A1, E1, Out | R1], /) -> Effect[A1, E1 | E3, R1 | R3]: ...
    @overload
    def __call__(self, target: Layer[O1, E1, Out], /) -> Layer[O1, E1 | E3, R3]: ...
    @overload
    def __call__(self, target: Layer[O1, E1, Out | R1], /) -> Layer[O1, E1 | E3, R1 | R3]: ...
    def __call__(self, target: Any, /) -> Any:
        """Apply the layer."""
        return _provided(target, self._layer, self._local)

    @overload
    def __ror__(self, target: Effect[A1, E1, Out], /) -> Effect[A1, E1 | E3, R3]: ...
    @overload
    def __ror__(self, target: Effect[A1, E1, Out | R1], /) -> Effect[A1, E1 | E3, R1 | R3]: ...
    @overload
    def __ror__(self, target: Layer[O1, E1, Out], /) -> Layer[O1, E1 | E3, R3]: ...
    @overload
    def __ror__(self, target: Layer[O1, E1, Out | R1], /) -> Layer[O1, E1 | E3, R1 | R3]: ...
    def __ror__(self, target: Any, /) -> Any:
        return _provided(target, self._layer, self._local)


def _provided(target: Any, layer: Layer[Any, Any, Any], local: bool) -> Any:
    if isinstance(target, Layer):
        return provide_to_layer(target, layer)  # pyright: ignore[reportUnknownArgumentType] - any layer
    if layer.constant is not None:
        return ProvideServices(target, layer.constant)
    return provide_layer(target, layer, local)


def provide_service(key: Key[T], service: T, /) -> provide[Need[T], Never, Never]:
    """Give an effect one service: `effect | provide_service(Users, users)`."""
    return provide(Layer.succeed(key, service))


def provide_service_effect(key: Key[T], make: Effect[T, E3, R3], /) -> provide[Need[T], E3, R3]:
    """Give an effect one service, made by an effect before each run."""
    return provide(Layer.effect(key, make))
