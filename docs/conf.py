"""Sphinx's settings; `make docs` builds the site."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

import ckd_mmdet.compat  # noqa: E402, F401  first: mmdet's modules need its operators
from ckd_mmdet import __version__  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402
from written import for_napoleon, for_the_site, write_pages  # noqa: E402

project, author, copyright = 'ckd_mmdet', 'The ckd_mmdet authors', '2026, the ckd_mmdet authors'
version = release = __version__
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon',
              'sphinx-mathjax-offline']  # no page loads anything from elsewhere
exclude_patterns = ['_build', 'examples', 'study', 'first_steps.ipynb']
html_theme = 'furo'
html_title = f'ckd_mmdet {__version__}'
html_static_path = ['_static']
html_css_files = ['wide_tables.css']
myst_enable_extensions = ['colon_fence', 'dollarmath']
myst_heading_anchors = 4
autodoc_typehints = 'signature'
autodoc_member_order = 'bysource'
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
toc_object_entries_show_parents = 'hide'


def setup(app: Sphinx) -> None:
    """Write what comes from `--help`, the table of recipes and the package, then build."""
    write_pages(DOCS / '_written')
    app.connect('autodoc-process-docstring', lambda app, what, name, obj, options, lines: for_napoleon(what, lines),
                priority=400)  # before Napoleon's, which has 500
    app.connect('source-read', lambda app, name, source: for_the_site(source, DOCS))
