"""Sphinx: `sphinx-build -W -b html docs docs/_build`, with no network and no warnings.

Everything that pages load is in the build: the fonts of KaTeX are committed in _static/katex, and
the inventories of other projects in _inventories.
"""

import os
import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from docutils import nodes

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # also of the kernels of the notebooks
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "pylyap"
author = "The pylyap developers"
copyright = author
version = release = version_of("pylyap")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "myst_nb",
    "numpydoc",
    "sphinx_click",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.katex",
]
exclude_patterns = [
    "_build",
    "jupyter_execute",
    "_templates",
    "_inventories",
    "_extensions",
    "**.ipynb_checkpoints",
]
exclude_patterns += ["gallery/**/*.ipynb", "gallery/**/*.py", "gallery/*.ipynb", "gallery/*.py"]
templates_path = ["_templates"]
nitpicky = True
highlight_language = "text"
default_role = "code"  # `name` in docstrings
smartquotes = False  # `--option` in help texts is two hyphens

# Pages and notebooks. Notebooks are committed without outputs and are executed once.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "auto"
nb_execution_timeout = 120
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_in_temp = True
nb_merge_streams = True

# Reference
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"  # numpydoc sections give types, shapes and units
autodoc_member_order = "groupwise"
numpydoc_show_class_members = False
add_module_names = False
python_use_unqualified_type_names = True
PROJECTS = {
    "python": "https://docs.python.org/3/",
    "numpy": "https://numpy.org/doc/stable/",
    "scipy": "https://docs.scipy.org/doc/scipy/",
    "matplotlib": "https://matplotlib.org/stable/",
    "xarray": "https://docs.xarray.dev/en/stable/",
}
intersphinx_mapping = {
    name: (url, str(HERE / "_inventories" / f"{name}.inv")) for name, url in PROJECTS.items()
}

# Gallery
sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "filename_pattern": "plot_",
    "within_subsection_order": "FileNameSortKey",
    "doc_module": ("pylyap",),
    "image_scrapers": ("matplotlib", "figures.scraper"),
    "ignore_repr_types": "matplotlib",
    "reference_url": {"pylyap": None},
    "backreferences_dir": "api/backreferences",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
    "show_signature": False,
    "min_reported_time": 10,
    "matplotlib_animations": False,
}

# Pages in the browser
html_theme = "pydata_sphinx_theme"
html_title = f"pylyap {version}"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_context = {"default_mode": "auto"}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "pylyap"},
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "show_nav_level": 1,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "performance": []}
katex_css_path = "katex/katex.min.css"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def escape_bars(app, what, name, obj, options, lines):
    """Docstrings write absolute values as |x|, which would be substitutions in reStructuredText."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(``.*?``)", line)
            parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
            lines[i] = "".join(parts)


def describe_thumbnails(app, doctree):
    """Thumbnails of the gallery have no alternative text: that of the example's file name."""
    for image in doctree.findall(nodes.image):
        found = re.fullmatch(r".*sphx_glr_plot_(\w+)_thumb\.\w+", image["uri"])
        if found and not image.get("alt"):
            image["alt"] = found[1].replace("_", " ")


def setup(app):
    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("doctree-read", describe_thumbnails)
