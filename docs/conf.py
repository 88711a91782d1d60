"""Sphinx configuration. Build with: sphinx-build -W -n docs docs/_build"""

import sys
import tomllib
from pathlib import Path

from pygments.lexer import RegexLexer
from pygments.token import Comment, Text
from sphinx.highlighting import lexers

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

project = "ztp-search"
release = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]["version"]
version = release
copyright = "The ztp-search authors"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "annotations",
    "benchmark",
    "command_reference",
]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
smartquotes_action = "D"  # dashes alone
default_role = "literal"  # single backticks of docstrings

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

# Nothing is fetched: names of other projects are no links, and are not asked for.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(collections|contextlib|pathlib|os|typing|numpy|npt|torch|nn|np|pydantic)\..*"),
    (r"py:.*", r"(.*\.ModelT|Tensor|(jaxtyping\.)?(Int|Bool|Float)|B|'B \w')"),
]

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"ztp-search {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sourcelink = False
html_show_sphinx = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"


class CommandLine(RegexLexer):  # type: ignore[misc]  # pygments comes without types
    """What a reader types: comments stand back, and `export` is a command like any other."""

    tokens = {"root": [(r"#.*", Comment), (r"[^#]+", Text)]}


lexers["sh"] = CommandLine()
