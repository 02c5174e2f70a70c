"""How Sphinx builds the site: Markdown pages, and a reference made of docstrings and of the command line itself.

The build opens no network connection and the pages load nothing from other hosts. ``make docs`` treats every warning,
so every link that leads nowhere, as an error.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import refold

project = "refold"
author = "the refold developers"
version = release = refold.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "sphinx_copybutton"]

html_theme = "furo"
html_title = "refold"
html_show_sphinx = False
html_copy_source = False
html_show_copyright = False

myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
napoleon_use_ivar = True
napoleon_use_rtype = False

# The button copies what a reader types: neither the prompt nor the output.
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True


def resolve_public_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Element | None:
    """Link a name that a docstring gives by its module to the entry of its public name."""
    target = node.get("reftarget", "")
    name = target.rpartition(".")[2]
    if node.get("refdomain") != "py" or not target.startswith("refold.") or name not in refold.__all__:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", f"refold.{name}", node, content)


def show_examples_as_text(app: Sphinx, context: object, lines: list[str]) -> None:
    """Print the examples below a command as they are: its epilog is no reStructuredText."""
    if examples := [line for line in lines if line.strip()][1:]:
        lines[:] = ["Example:", "", ".. code-block:: text", "", *(f"   {line.lstrip('| ')}" for line in examples)]


def setup(app: Sphinx) -> None:
    """Register the hooks."""
    app.connect("missing-reference", resolve_public_name)
    app.connect("sphinx-click-process-epilog", show_examples_as_text)
