"""The documents run: Python blocks in the order they stand, one namespace per section, and what they print is shown."""

import contextlib
import doctest
import inspect
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import functrace

ROOT = Path(__file__).parents[1]
README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"


class Block(NamedTuple):
    language: str
    line: int  # of the opening fence, counted from 1
    text: str


def blocks_by_section(text: str) -> dict[str, list[Block]]:
    """Section title to its ```python blocks, and the ```text blocks that show what those print."""
    sections: dict[str, list[Block]] = {}
    title, language, start, lines = "", None, 0, []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            if language is None:
                language, start, lines = line[3:].strip(), number, []
                continue
            if language in ("python", "text"):
                sections.setdefault(title, []).append(Block(language, start, "\n".join(lines) + "\n"))
            language = None
        elif language is not None:
            lines.append(line)
        elif heading := re.match(r"#+ (.*)", line):
            title = heading[1]
    return sections


def run_section(blocks: list[Block], filename: str) -> None:
    """Run Python blocks; a text block must be what the block before it printed, up to `...`."""
    namespace: dict[str, Any] = {"__name__": "document"}
    printed = ""
    for block in blocks:
        if block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as output:
                # Blank lines before it put each line of code at its own number in the document.
                exec(compile("\n" * block.line + block.text, filename, "exec"), namespace)
            printed = output.getvalue()
        else:
            alike = doctest.OutputChecker().check_output(block.text, printed, doctest.ELLIPSIS)
            assert alike, f"{filename}:{block.line} shows\n{block.text}\nwhere this is printed:\n{printed}"


SECTIONS = blocks_by_section(README.read_text(encoding="utf-8"))


@pytest.mark.parametrize("title", SECTIONS)
def test_readme_section_runs(title):
    run_section(SECTIONS[title], str(README))


def test_readme_states_each_command_once():
    marked = re.compile(r"^<!-- command: (\w+) -->\n```sh\n(.+)\n```$", re.MULTILINE)
    commands = marked.findall(README.read_text(encoding="utf-8"))
    assert [name for name, _ in commands] == ["demo", "test"]
    assert "functrace demo" in commands[0][1] and "pytest" in commands[1][1]


def test_readme_names_every_public_function():
    status = README.read_text(encoding="utf-8").partition("## Status")[2].partition("## Speed")[0]
    named = set(re.findall(r"`(?:functrace\.)?(\w+)`", status))
    public = {name for name, value in vars(functrace).items() if inspect.isfunction(value) and name[0] != "_"}
    assert public <= named


def test_contributing_walkthrough_runs_as_one_file(tmp_path):
    """In a process of its own, since it declares a primitive."""
    sections = blocks_by_section(CONTRIBUTING.read_text(encoding="utf-8"))
    blocks = [block for blocks in sections.values() for block in blocks]
    file = tmp_path / "logcosh.py"
    file.write_text("\n".join(block.text for block in blocks), encoding="utf-8")
    done = subprocess.run([sys.executable, "-W", "error", file], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "b:float64[] = logcosh a" in done.stdout


@pytest.mark.parametrize("document", [README, CONTRIBUTING], ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    targets = re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8"))
    assert targets
    assert not [target for target in targets if "://" not in target and not (ROOT / target).exists()]


def test_blocks_are_found_with_their_lines():
    first = "# A\n```python\nx = 1\n```\nprose\n```python\nprint(x)\n```\n```text\n1\n```\n"
    second = "## B\n```sh\n# no heading\n```\n```python\ny = 2\n```\n"
    sections = blocks_by_section(first + second)
    assert [block.line for block in sections["A"]] == [2, 6, 9]
    assert sections["B"] == [Block("python", 16, "y = 2\n")]
    run_section(sections["A"], "A")


def test_a_wrong_output_is_noticed():
    blocks = [Block("python", 1, "print(1)\n"), Block("text", 4, "2\n")]
    with pytest.raises(AssertionError, match="A:4 shows"):
        run_section(blocks, "A")
    with pytest.raises(NameError):
        run_section([Block("python", 1, "x\n")], "A")
