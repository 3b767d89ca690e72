"""The tiers of the proof, and the figures that it ends with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_figures = pytest.StashKey[list[tuple[str, dict[str, object]]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="ten times as much of every proof")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_figures] = []


@pytest.fixture
def tier(pytestconfig: pytest.Config) -> int:
    """How often to do what every run of the suite does once: 10 with ``--nightly``."""
    return 10 if pytestconfig.getoption("--nightly") else 1


@pytest.fixture
def report(pytestconfig: pytest.Config) -> Callable[..., None]:
    """``report("power loss", images=20_000, lost=0)``: figures that the run ends with."""

    def add(proof: str, **figures: object) -> None:
        pytestconfig.stash[_figures].append((proof, figures))

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[_figures]:
        terminalreporter.section("proof")
    for proof, figures in config.stash[_figures]:
        told = ", ".join(
            f"{name.replace('_', ' ')} {value:,}"
            if isinstance(value, int)
            else f"{name.replace('_', ' ')} {value}"
            for name, value in figures.items()
        )
        terminalreporter.write_line(f"{proof}: {told}")
