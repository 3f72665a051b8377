"""Pictures of the gallery: a figure that is the last expression of a block, as in a notebook.

The figures of pylyap do not belong to pyplot, where sphinx-gallery looks for them.
"""

from typing import Any

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst


def scraper(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Write the figure of a block and return the text that shows it."""
    names = block_vars["example_globals"]
    figure, shown = names.get("___"), names.setdefault("__shown__", [])
    if not isinstance(figure, Figure) or figure in shown:
        return ""
    shown.append(figure)
    path = next(block_vars["image_path_iterator"])
    figure.savefig(path, dpi=120)
    titles = [axes.get_title() or axes.get_ylabel() for axes in figure.axes]
    titles.insert(0, figure.get_suptitle())
    text = ", ".join(dict.fromkeys(title for title in titles if title))
    return figure_rst([path], gallery_conf["src_dir"], text)
