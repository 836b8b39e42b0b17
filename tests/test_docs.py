"""The documentation's code runs and prints what stands there, its links lead somewhere, and its drawings are current.

No Sphinx here: the pages are read as text. Each page is one session, its `pycon` blocks in the order they stand.
"""

import doctest
import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
FENCE = re.compile(r"^```(\S*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.REPORT_NDIFF
LANGUAGES = {"pycon", "sh", "text", "{toctree}", "{eval-rst}"}


def name_of(page):
    return str(page.relative_to(DOCS))


def session(text: str, name: str) -> doctest.DocTest:
    """The examples of a page's blocks, with their lines in the page."""
    examples = []
    for block in FENCE.finditer(text):
        if block[1] != "pycon":
            continue
        start = text.count("\n", 0, block.start(2))
        for example in doctest.DocTestParser().get_examples(block[2], name):
            example.lineno += start
            examples.append(example)
    return doctest.DocTest(examples, {"__name__": "document"}, name, name, 0, text)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = session(page.read_text(encoding="utf-8"), page.name)
    report: list[str] = []
    results = doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(test, out=report.append)
    assert results.failed == 0, "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_are_of_known_languages(page):
    """A block in another language would not be run; one that is never closed would hide what follows."""
    text = page.read_text(encoding="utf-8")
    assert {block[1] for block in FENCE.finditer(text)} <= LANGUAGES
    assert text.count("\n```") + text.startswith("```") == 2 * len(FENCE.findall(text))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_pictures_exist(page):
    text = page.read_text(encoding="utf-8")
    targets = [t.partition("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t]
    assert not [t for t in targets if t and not (page.parent / t).exists()]
    for tree in re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL):
        entries = [line for line in tree.splitlines() if line and not line.startswith(":")]
        assert not [e for e in entries if not (page.parent / f"{e}.md").exists()]


def test_every_page_is_in_a_table_of_contents():
    listed = {DOCS / "index.md"}
    for page in PAGES:
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            listed |= {page.parent / f"{line}.md" for line in tree.splitlines() if line and not line.startswith(":")}
    assert listed == set(PAGES)


def test_drawings_are_current():
    drawings = runpy.run_path(str(DOCS / "make_drawings.py"))["drawings"]()
    assert {path.name for path in (DOCS / "drawings").iterdir()} == set(drawings)
    for name, drawing in drawings.items():
        assert (DOCS / "drawings" / name).read_text(encoding="utf-8") == drawing.svg() + "\n", (
            f"run make_drawings: {name}"
        )


def test_a_wrong_output_is_noticed():
    test = session("# Title\n\n```pycon\n>>> 1 + 1\n3\n```\n", "page")
    assert test.examples[0].lineno == 3
    report: list[str] = []
    assert doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(test, out=report.append).failed == 1
