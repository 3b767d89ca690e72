"""Endpoints and runtimes that are closed at the end of a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from telemetry_scene import NOON, Answer, Endpoint

from durable_effect.testing import TestRuntime


@pytest.fixture
def endpoints() -> Iterator[Callable[..., Endpoint]]:
    """Makes endpoints."""
    made: list[Endpoint] = []

    def make(*answers: Answer, port: int = 0) -> Endpoint:
        made.append(Endpoint(*answers, port=port))
        return made[-1]

    yield make
    for endpoint in made:
        endpoint.close()


@pytest.fixture
def runtime() -> Iterator[TestRuntime]:
    """A runtime whose clock begins at noon."""
    with TestRuntime(NOON) as made:
        yield made
