"""Run tests on a copy of the package: ``python run_on_copy.py COPY ARGUMENTS-OF-PYTEST...``.

Ends with 0 when they pass, with ``NOTICED`` when one fails, and otherwise with anything else: a copy that
cannot even be imported is no proof of the tests.
"""

import sys
from pathlib import Path

import pytest

NOTICED = 10
_ELSE = 20


class OnlyTheCopy:
    """Refuses to begin on any other package, such as the one that is installed."""

    def __init__(self, copy: Path) -> None:
        self._copy = copy

    def pytest_sessionstart(self) -> None:
        import durable_effect_jobs

        found = Path(str(durable_effect_jobs.__file__))
        if not found.is_relative_to(self._copy):
            pytest.exit(f"{found} is not in {self._copy}", returncode=_ELSE)


if __name__ == "__main__":
    code = pytest.main(sys.argv[2:], plugins=[OnlyTheCopy(Path(sys.argv[1]))])
    sys.exit({pytest.ExitCode.OK: 0, pytest.ExitCode.TESTS_FAILED: NOTICED}.get(pytest.ExitCode(code), _ELSE))
