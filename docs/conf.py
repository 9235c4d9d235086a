"""Sphinx's settings. The source folder is the repository, so that links work on GitHub too."""

from sphinx.application import Sphinx

from embconform import __version__

project = "embconform"
release = __version__
html_title = f"embconform {release}"
html_theme = "furo"

root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "reference/SPEC.md"]
exclude_patterns = ["docs/images"]
html_extra_path = ["site"]  # the site's front page leads to docs/index.html

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx_click"]
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_block"]
autodoc_typehints = "signature"
numpydoc_show_class_members = False
maximum_signature_line_length = 88
html_copy_source = False
html_show_copyright = False
smartquotes = False  # they make one dash of the two of an option
html_show_sourcelink = False


def setup(app: Sphinx) -> None:
    """Let asterisks in the help of commands be asterisks."""
    app.connect("sphinx-click-process-description", _escape)


def _escape(_app: Sphinx, _context: object, lines: list[str]) -> None:
    lines[:] = [line.replace("*", r"\*") for line in lines]
