"""Whatever the documentation shows runs, prints what it says, and links to what exists."""

from __future__ import annotations

import inspect
import shlex
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import pytest
from hypothesis import HealthCheck, settings
from pages import ROOT, Block, Page, pages

PAGES = pages()
AT_LEISURE = settings(
    max_examples=20, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
PROGRAMS = [page for page in PAGES if page.program]


def by_name(page: Page) -> str:
    return page.name


def run(block: Block, page: Page, module: ModuleType, request: pytest.FixtureRequest) -> None:
    """Run a block as a part of the page's module; tracebacks name the page and its line."""
    known = set(vars(module))
    source = "\n" * (block.line - 1) + block.code
    exec(compile(source, page.path, "exec", dont_inherit=True), vars(module))
    for name, value in list(vars(module).items()):
        if name.startswith("test_") and name not in known and isinstance(value, FunctionType):
            if getattr(value, "is_hypothesis_test", False):
                value = AT_LEISURE(value)
            value(**{name: request.getfixturevalue(name) for name in inspect.signature(value).parameters})


@pytest.mark.parametrize("page", PROGRAMS, ids=by_name)
def test_the_blocks_of_a_page_run_in_order(
    page: Page,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    """Every Python block runs without an error and prints what it says."""
    monkeypatch.chdir(tmp_path)
    module = ModuleType(page.module_name)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in page.program:
        run(block, page, module, request)
        printed = capsys.readouterr().out.splitlines()
        if block.expected_lines:
            assert printed == block.expected_lines, f"{page.name}:{block.line}"


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_a_block_that_is_not_run_says_why(page: Page) -> None:
    """Only a block with a reason in a comment above it is left out."""
    for block in page.blocks:
        if block.is_python and not block.runs:
            assert block.above.startswith("<!--"), f"{page.name}:{block.line}"


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links_lead_somewhere(page: Page) -> None:
    """Every link within the project names a file that is there, and a heading that is in it."""
    for link in page.links:
        target, _, anchor = link.partition("#")
        path = (page.path.parent / target).resolve() if target else page.path
        assert path.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in Page(path).anchors, f"{page.name} links to {link}"


def test_every_page_can_be_found_from_the_index() -> None:
    """A page that no way leads to from the index is a page that nobody reads."""
    found: set[Path] = set()
    ways = [ROOT / "docs" / "index.md"]
    while ways:
        path = ways.pop()
        if path.suffix == ".md" and path not in found:
            found.add(path)
            ways += [(path.parent / link.partition("#")[0]).resolve() for link in Page(path).links]

    assert {page.path for page in PAGES} <= found


@pytest.mark.parametrize("page", [page for page in PAGES if page.dialogue], ids=by_name)
def test_commands_answer_as_shown(page: Page, tmp_path: Path) -> None:
    """What stands below a `$ durable-effect ...` is what the command prints."""
    for command, shown in page.dialogue:
        _, *arguments = shlex.split(command)
        answer = subprocess.run(
            [sys.executable, "-m", "durable_effect_jobs.cli", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.stdout + answer.stderr == shown, command


def test_the_quick_start_continues_where_it_stopped(tmp_path: Path) -> None:
    """The file that a newcomer pastes runs, and a second run finds what the first one left."""
    program = tmp_path / "quickstart.py"
    program.write_text(Page(ROOT / "README.md").program[0].code, encoding="utf-8")

    first, second = (
        subprocess.run(
            [sys.executable, program], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    )

    assert "created=True" in first
    assert "run 1:" in first
    assert "created=False" in second
    assert "run 1:" not in second
    assert "run 4:" in first + second
