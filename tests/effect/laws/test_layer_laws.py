"""What holds for every graph of layers: built once, from below; released once, from above."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from programs import NEW_YEAR, Oops

from durable_effect import Effect, Failure, Layer, Success, Tag, provide, provide_service
from durable_effect.testing import TestRuntime

TAGS = [Tag[int](f"Service{number}") for number in range(5)]
AnyLayer = Layer[Any, Any, Any]


@st.composite
def graphs(draw: st.DrawFn) -> list[list[int]]:
    """For each layer, the earlier ones that it needs."""
    count = draw(st.integers(1, 5))
    return [draw(st.lists(st.integers(0, n - 1), unique=True)) if n else [] for n in range(count)]


class Site:
    """Makes the layers of a graph, and keeps a log of the building."""

    def __init__(self, graph: list[list[int]], failing: int | None = None) -> None:
        self.graph, self.failing = graph, failing
        self.log: list[tuple[str, int]] = []
        self.layers: list[AnyLayer] = []
        for number, needs in enumerate(graph):
            layer: AnyLayer = Layer.scoped(TAGS[number], self._make(number))
            below = [self.layers[need] for need in needs]
            self.layers.append(layer.provide(Layer.merge_all(*below)) if below else layer)

    def _make(self, number: int) -> Effect[Any, Any, Any]:
        needed = Effect.all([Effect.service(TAGS[need]) for need in self.graph[number]])
        built = Effect.fail(Oops("e1")) if number == self.failing else self._note("+", number)
        return Effect.acquire_release(
            Effect.sleep("1 s").and_then(needed).and_then(built).as_(number), lambda n: self._note("-", n)
        )

    def _note(self, what: str, number: int) -> Effect[Any, Any]:
        return Effect.sync(lambda: self.log.append((what, number)))

    def run(self) -> Any:
        """Build everything, look everything up, release everything."""
        wanted: Effect[Any, Any, Any] = Effect.all([Effect.service(TAGS[n]) for n in range(len(self.graph))])
        with TestRuntime(NEW_YEAR) as world:
            return world.run_exit(wanted | provide(Layer.merge_all(*self.layers)))

    def numbers(self, what: str) -> list[int]:
        return [number for sign, number in self.log if sign == what]

    def check(self) -> None:
        """Who was built was built after what it needs, and released before it; each once."""
        assert sorted(self.numbers("+")) == sorted(self.numbers("-")) == sorted(set(self.numbers("+")))
        for number in self.numbers("+"):
            for need in self.graph[number]:
                assert self.log.index(("+", need)) < self.log.index(("+", number))
                assert self.log.index(("-", number)) < self.log.index(("-", need))


@settings(max_examples=60)
@given(graphs())
def test_built_once_and_released_in_reverse(graph: list[list[int]]) -> None:
    """However often a layer occurs in a graph, it is built once, after what it needs."""
    site = Site(graph)
    assert site.run() == Success(list(range(len(graph))))
    assert len(site.numbers("+")) == len(graph)
    site.check()


@settings(max_examples=60)
@given(graphs(), st.data())
def test_a_layer_that_fails_takes_nothing_with_it(graph: list[list[int]], data: st.DataObject) -> None:
    """The error is the build's; what had been built is released, what needs the failed one is never built."""
    failing = data.draw(st.integers(0, len(graph) - 1))
    site = Site(graph, failing)
    ended = site.run()
    assert isinstance(ended, Failure)
    assert ended.cause.failures == (Oops("e1"),)
    assert failing not in site.numbers("+")
    assert not any(failing in graph[number] for number in site.numbers("+"))
    site.check()


@given(st.lists(st.integers(), min_size=1, max_size=4))
def test_merge_is_associative_and_the_last_one_wins(values: list[int]) -> None:
    """However a merge is bracketed, it provides what the last layer for a key says."""
    layers: list[AnyLayer] = [Layer.sync(TAGS[0], lambda value=value: value) for value in values]
    left, right = layers[0], layers[-1]
    for layer in layers[1:]:
        left = left.merge(layer)
    for layer in reversed(layers[:-1]):
        right = layer.merge(right)
    empty: AnyLayer = Layer.empty()
    for merged in (left, right, Layer.merge_all(*layers), left.merge(empty), empty.merge(left)):
        assert Effect.run_sync(Effect.service(TAGS[0]) | provide(merged)) == values[-1]


@given(st.integers(), st.integers())
def test_providing_laws(a: int, b: int) -> None:
    """The inner one wins, another key does not disturb, and all parts see what the whole is given."""
    asked: Effect[Any, Any, Any] = Effect.service(TAGS[0])
    inner = asked | provide_service(TAGS[0], a) | provide_service(TAGS[0], b)
    other = asked | provide_service(TAGS[1], b) | provide_service(TAGS[0], a)
    whole = asked.flat_map(lambda x: asked.map(lambda y: (x, y))) | provide_service(TAGS[0], a)
    assert (Effect.run_sync(inner), Effect.run_sync(other), Effect.run_sync(whole)) == (a, a, (a, a))
