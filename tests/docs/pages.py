"""The documentation as programs: which code blocks a page has, and how they run.

    python tests/docs/pages.py DIRECTORY      writes each page as one module, for a type checker

The Python blocks of a page are one program: they run in order, in one module, in an empty directory.
Functions named `test_...` are run too, with the pytest fixtures that they ask for. A block that says
`# -> text` behind its prints must print exactly these lines. A fence marked `no-run` is left out; an HTML
comment right above says why. In `console` blocks a line with `$` is a command, and what is below it is what
it prints.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^(?P<above>[^\n]*)\n```(?P<info>[^\n`]+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_EXPECTED = re.compile(r"# -> (.*)$", re.MULTILINE)
_COMMAND = re.compile(r"^\$ (?P<command>.*)\n(?P<answer>(?:(?!\$ ).*\n)*)", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@attrs.frozen
class Block:
    """A fenced block: what its fence says, its code, and the line of the page on which the code begins."""

    info: str
    code: str
    line: int
    above: str

    @property
    def is_python(self) -> bool:
        return self.info.split()[0] == "python"

    @property
    def runs(self) -> bool:
        return self.is_python and "no-run" not in self.info.split()

    @property
    def expected_lines(self) -> list[str]:
        """What the block says it prints."""
        return _EXPECTED.findall(self.code)


@attrs.frozen
class Page:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def module_name(self) -> str:
        return re.sub(r"\W", "_", self.name.removesuffix(".md")).lower()

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def blocks(self) -> list[Block]:
        text = "\n" + self.text
        return [
            Block(found["info"], found["code"], text.count("\n", 0, found.start("code")), found["above"])
            for found in _FENCE.finditer(text)
        ]

    @property
    def program(self) -> list[Block]:
        """The blocks that run."""
        return [block for block in self.blocks if block.runs]

    @property
    def dialogue(self) -> list[tuple[str, str]]:
        """The commands of the console blocks, each with what it prints."""
        return [
            (said["command"], said["answer"])
            for block in self.blocks
            if block.info == "console"
            for said in _COMMAND.finditer(block.code)
        ]

    @property
    def links(self) -> list[str]:
        """Where the page links to within the project."""
        prose = _FENCED.sub("", self.text)
        return [link for link in _LINK.findall(prose) if "://" not in link and not link.startswith("mailto:")]

    @property
    def anchors(self) -> set[str]:
        """What a link may name behind its `#`."""
        return {_anchor(heading) for heading in _HEADING.findall(_FENCED.sub("", self.text))}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def pages() -> list[Page]:
    """Every page of the documentation."""
    top = (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))
    return [Page(path) for path in (*top, *sorted((ROOT / "docs").rglob("*.md")))]


def write_modules(directory: Path) -> Iterator[Path]:
    """Write each page's program as a module with the page's line numbers."""
    directory.mkdir(parents=True, exist_ok=True)
    for page in pages():
        lines: list[str] = []
        for block in page.program:
            lines += [""] * (block.line - 1 - len(lines)) + block.code.splitlines()
        if lines:
            path = directory / f"{page.module_name}.py"
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            yield path


if __name__ == "__main__":
    for written in write_modules(Path(sys.argv[1])):
        print(written)
