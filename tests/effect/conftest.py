"""What the tests of the effect core share."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from durable_effect.testing import TestRuntime

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def world() -> Iterator[TestRuntime]:
    """Give a runtime on virtual time that begins at the new year of 2026."""
    with TestRuntime(NEW_YEAR) as runtime:
        yield runtime
