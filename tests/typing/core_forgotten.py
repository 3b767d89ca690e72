"""What the type checkers say about a forgotten `yield from`: checked by mypy and pyright, never run."""
# mypy: enable-error-code="unused-awaitable"

from __future__ import annotations

from durable_effect import Do, Effect


class Counter:
    """Something with effects."""

    def add(self, n: int) -> Effect[int]:
        return Effect.succeed(n)


@Effect.gen
def dropped(counter: Counter) -> Do[None]:
    counter.add(1)  # type: ignore[unused-awaitable]
    yield from Effect.void


@Effect.gen
def used_as_the_value(counter: Counter) -> Do[int]:
    x = counter.add(1)
    yield from Effect.void
    return x + 1  # type: ignore[operator] # pyright: ignore


@Effect.gen
def returned(counter: Counter) -> Do[int]:
    yield from Effect.void
    return counter.add(1)  # type: ignore[return-value] # pyright: ignore[reportReturnType]


@Effect.gen
def asked(counter: Counter) -> Do[None]:
    if counter.add(1):  # pyright: ignore[reportGeneralTypeIssues]
        yield from Effect.void


@Effect.gen
def bare(counter: Counter) -> Do[int]:
    x = yield counter.add(1)  # type: ignore[misc] # pyright: ignore[reportReturnType]
    return int(x)


@Effect.gen  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
def no_generator(counter: Counter) -> int:
    return 3
