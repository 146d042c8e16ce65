"""Configuration of the documentation: ``make docs`` builds it into build/docs."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from s3prl_dphubert import __version__  # noqa: E402

project = "s3prl-dphubert"
copyright = "2026, the s3prl-dphubert authors"
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["results/free-superb"]  # the models' cards

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# Public names have to resolve. Internal modules have no page, and the build looks nothing up in the network.
nitpick_ignore_regex = [(r"py:.*", r"(?!s3prl_dphubert\.\w+$).*")]

html_theme = "furo"
html_title = "s3prl-dphubert"
html_static_path: list[str] = []
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f6f8b", "color-brand-content": "#1f6f8b"},
    "dark_css_variables": {"color-brand-primary": "#6fb7cf", "color-brand-content": "#6fb7cf"},
}
