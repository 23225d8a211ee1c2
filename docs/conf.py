"""How the documentation is built: ``tox -e docs``."""

import re
import sys
from pathlib import Path

from sphinx.ext.napoleon import Config, GoogleDocstring

sys.path.insert(0, str(Path(__file__).parents[1]))

project = "tornado_sessions"
copyright = "the tornado-sessions authors"
author = "the tornado-sessions authors"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
default_role = "py:obj"
nitpicky = True
# Nothing is fetched while building, so what is defined elsewhere has no target.
nitpick_ignore_regex = [
    ("py:.*", r"(asyncio|collections|datetime|os|time|tornado|types|typing)\..*"),
    ("py:.*", r"(enum|msgspec|pymongo|unittest)(\..*)?"),
    ("py:.*", r"(Application|AsyncHTTPClient|.*HasSettings|timedelta)"),
    ("py:.*", "Keyring"),  # what a list of keys is kept as; nobody makes one
]

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True}

toc_object_entries_show_parents = "hide"
pygments_dark_style = "github-dark"

html_theme = "furo"
html_title = "tornado_sessions"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#0b6e99",
        "color-brand-content": "#0b6e99",
    },
    "dark_css_variables": {
        "color-brand-primary": "#5cc3ee",
        "color-brand-content": "#5cc3ee",
    },
}


RULE = re.compile(r" \([A-Z]\d+(?:(?:, | to )[A-Z]\d+)*\)")
"""The rule that a docstring refers to."""
NOT_CALLED = ("Codec", "Outcome", "Session", "SessionMixin", "StoreConformance")
"""Classes of which applications make no objects themselves."""


def read_google_style(app, what, name, *rest):
    """Read docstrings as napoleon does, without the rules that they prove.

    Those of attributes are left alone: of them it takes what is before a colon as a
    type.
    """
    obj, options, lines = rest
    lines[:] = [RULE.sub("", line) for line in lines]
    if what not in {"attribute", "data", "property"}:
        parsed = GoogleDocstring(lines, Config(), app, what, name, obj, options)
        lines[:] = parsed.lines()


def hide_constructor(_app, what, name, *_):
    """Leave out the arguments of what applications are given ready-made."""
    if what == "class" and name.rpartition(".")[2] in NOT_CALLED:
        return "", None
    return None


def resolve_by_last_name(app, env, node, contnode):
    """Link a bare name to the public object that ends with it."""
    domain, last = env.get_domain("py"), "." + node.get("reftarget", "")
    found = [name for name in domain.objects if name.endswith(last)]
    if node.get("refdomain") != "py" or not found:
        return None
    place = (env, node["refdoc"], app.builder)
    return domain.resolve_xref(*place, "obj", min(found, key=len), node, contnode)


def setup(app):
    app.connect("autodoc-process-docstring", read_google_style)
    app.connect("missing-reference", resolve_by_last_name)
    app.connect("autodoc-process-signature", hide_constructor)
