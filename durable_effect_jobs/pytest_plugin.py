"""The pytest plugin: the fixture ``jobs_kit`` makes test kits and closes them when the test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from durable_effect_jobs.testing import JobsTestKit

__all__ = ["jobs_kit"]


@pytest.fixture
def jobs_kit() -> Iterator[Callable[..., JobsTestKit]]:
    """``kit = jobs_kit(jobs, now=..., layer=...)``: a :class:`JobsTestKit` that is closed after the test."""
    # Imported here: a plugin is loaded in every pytest run of its environment, whatever is tested there.
    from durable_effect_jobs.testing import JobsTestKit

    with ExitStack() as stack:

        def make(jobs: Any, **options: Any) -> JobsTestKit:
            return stack.enter_context(JobsTestKit(jobs, **options))

        yield make
