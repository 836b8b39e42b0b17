"""How Sphinx builds the documentation: `sphinx-build -W docs docs/_build`."""

import re
from importlib import metadata

project = "functrace"
author = "The functrace authors"
copyright = author
release = metadata.version("functrace")
version = ".".join(release.split(".")[:2])

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "code"
nitpicky = False

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

html_theme = "alabaster"
html_title = f"functrace {release}"
html_theme_options = {
    "description": "NumPy functions into their derivatives",
    "page_width": "72em",
    "sidebar_width": "16em",
    "fixed_sidebar": True,
}

autodoc_member_order = "groupwise"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes in the text of their class, not as objects of their own
napoleon_custom_sections = [("Example", "Examples")]


def unfold_sections(app, what, name, obj, options, lines):
    """Sections that begin on the line of their heading, as in `Returns: the value`, put below it."""
    for i in reversed(range(len(lines))):
        heading = re.match(r"(Args|Returns|Raises): (.+)", lines[i])
        if heading:
            lines[i : i + 1] = ["", f"{heading[1]}:", f"    {heading[2]}"]


def as_restructured_text(app, what, name, obj, options, lines):
    """The docstrings are plain text with code in backquotes; here what Sphinx would take for more is escaped."""
    for i, line in enumerate(lines):
        if line.lstrip().startswith((">>>", "...")):
            continue
        line = re.sub(r"(`[^`]+`)(\w?)", lambda m: m[1] + ("\\ " + m[2] if m[2] else ""), line)  # `Array`s
        line = re.sub(r"(?<!\\)\|(?=\w)(?![^`]*`(?:[^`]*`[^`]*`)*[^`]*$)", r"\\|", line)  # |x|
        lines[i] = re.sub(r"(?<![\\`*\w])(\*{1,2})(?=\w)(?![^`]*`(?:[^`]*`[^`]*`)*[^`]*$)", r"\\\1", line)  # f(*args)


def is_numpys_own(app, what, name, obj, skip, options):
    """Names that `functrace.numpy` passes on from NumPy unchanged are NumPy's to document."""
    home = getattr(obj, "__module__", None) or ""
    return True if what == "module" and not home.startswith("functrace") else None


def setup(app):
    app.connect("autodoc-skip-member", is_numpys_own)
    app.connect("autodoc-process-docstring", unfold_sections, priority=100)
    app.connect("autodoc-process-docstring", as_restructured_text, priority=900)
    return {"parallel_read_safe": True}
