"""Tests that the documentation names as proof are there."""

from __future__ import annotations

import ast
import re

import pytest
from pages import ROOT, Page, pages

_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")

NAMING = [page for page in pages() if _NAMED.search(page.text)]


@pytest.mark.parametrize("page", NAMING, ids=lambda page: page.name)
def test_a_test_that_a_page_names_is_there(page: Page) -> None:
    """A promise is proven by a test of this file and this name, or by nothing."""
    missing = [f"{path}::{name}" for path, name in _NAMED.findall(page.text) if name not in _tests_in(path)]
    assert missing == []


def test_the_guarantees_name_tests() -> None:
    """All 24 promises are there, and each says how it is proven."""
    text = Page(ROOT / "docs" / "guarantees.md").text
    promises = dict(re.findall(r"^### P(\d+) .*?\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL))
    assert sorted(map(int, promises)) == list(range(1, 25))
    assert [number for number, said in promises.items() if not _NAMED.search(said)] == []


def _tests_in(path: str) -> set[str]:
    file = ROOT / path
    if not file.exists():
        return set()
    found = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return {node.name for node in found if isinstance(node, ast.FunctionDef)}
