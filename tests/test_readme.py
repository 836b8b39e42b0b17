"""The README runs: each ```python block in the order it stands, in one namespace per section."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def python_sections(text: str) -> dict[str, str]:
    """Section title to its Python blocks, each line of code at its own line number."""
    sections: dict[str, list[str]] = {}
    title, fence = "", None
    for number, line in enumerate(text.splitlines()):
        if line.startswith("```"):
            fence = None if fence is not None else line[3:].strip()
        elif fence is None and (heading := re.match(r"#+ (.*)", line)):
            title = heading[1]
        elif fence == "python":
            lines = sections.setdefault(title, [])
            lines.extend([""] * (number - len(lines)) + [line])
    return {title: "\n".join(lines) for title, lines in sections.items()}


SECTIONS = python_sections(README.read_text(encoding="utf-8"))


@pytest.mark.parametrize("title", SECTIONS)
def test_readme_section_runs(title):
    exec(compile(SECTIONS[title], README, "exec"), {"__name__": "readme"})


def test_readme_states_each_command_once():
    marked = re.compile(r"^<!-- command: (\w+) -->\n```sh\n(.+)\n```$", re.MULTILINE)
    commands = marked.findall(README.read_text(encoding="utf-8"))
    assert [name for name, _ in commands] == ["demo", "test"]
    assert "functrace demo" in commands[0][1] and "pytest" in commands[1][1]


def test_python_sections_share_a_namespace_within_a_section_only():
    first = "# A\n```python\nx = 1\n```\nprose\n```python\nx\n```\n"
    second = "## B\n```sh\n# no heading\n```\n```python\ny = 2\n```\n"
    sections = python_sections(first + second)
    assert list(sections) == ["A", "B"]
    assert sections["A"].splitlines()[2] == "x = 1" and sections["A"].splitlines()[6] == "x"
