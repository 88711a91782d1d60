"""Sphinx configuration. Build with: sphinx-build -W -n docs docs/_build"""

import sys
import tomllib
from pathlib import Path

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
    "command_reference",
]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
smartquotes = False  # "--" is how options begin

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
html_show_sphinx = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"
