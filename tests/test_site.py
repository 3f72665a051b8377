"""The built site in a browser without a window: `sphinx-build -W -b html docs docs/_build` first.

The folder may also be named by PYLYAP_SITE. Pages are served as a user would serve them.
"""

import functools
import http.server
import json
import os
import shutil
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

selenium = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

SITE = Path(os.environ.get("PYLYAP_SITE", Path(__file__).parents[1] / "docs" / "_build")).resolve()
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
PAGES = sorted(
    str(page)
    for page in (path.relative_to(SITE) for path in SITE.rglob("*.html"))
    if page.parts[0] != "_static"
)
# Of the many pages of the reference and of the gallery, every eighth is opened.
MANY = ("api/generated/", "gallery/")
OPENED = [
    page
    for i, page in enumerate(PAGES)
    if i % 8 == 0 or page.endswith("index.html") or not page.startswith(MANY)
]
NARROW, WIDE = 400, 1400

pytestmark = pytest.mark.skipif(not PAGES, reason="the site is not built")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="Chromium and its driver are not installed"
)

UNNAMED_PICTURES = """
return [...document.querySelectorAll("main img, main object[type='image/svg+xml']")]
  .filter(i => !(i.getAttribute("alt") || "").trim()).map(i => i.src || i.data)
"""
BROKEN_PICTURES = """
return [...document.images].filter(i => i.loading != "lazy" && !(i.complete && i.naturalWidth > 0))
  .map(i => i.src)
"""
FORMULAS = """
return [document.querySelectorAll(".math .katex").length,
        document.querySelectorAll(".katex-error").length,
        Math.min(...[...document.querySelectorAll(".katex-html")]
          .map(f => f.getBoundingClientRect().left))]
"""
COVERED = """
return [...document.querySelectorAll("div.math .eqno")].filter(number => {
  const n = number.getBoundingClientRect();
  return [...number.parentElement.querySelectorAll(".katex-html")].some(formula => {
    const f = formula.getBoundingClientRect();
    return f.right > n.left && n.right > f.left && f.bottom > n.top && n.bottom > f.top;
  });
}).length
"""


class Links(HTMLParser):
    """Anchors and addresses of a page."""

    def __init__(self):
        super().__init__()
        self.anchors, self.addresses, self.pictures = set(), [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.anchors.update(attributes[key] for key in ("id", "name") if attributes.get(key))
        for key in ("href", "src"):
            if attributes.get(key):
                self.addresses.append(attributes[key])
        if tag == "img":
            self.pictures.append(attributes)


@functools.cache
def parsed(path):
    links = Links()
    links.feed(path.read_text("utf-8"))
    return links


@pytest.fixture(scope="module")
def address():
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=SITE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-extensions"):
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = selenium.Chrome(options, selenium.ChromeService(DRIVER))
    yield driver
    driver.quit()


def set_width(browser, width):
    """Windows cannot be narrower than 500 pixels; phones are emulated."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )


def requests(browser):
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event for event in events if event["method"] == "Network.requestWillBeSent"]
    return [event["params"]["request"]["url"] for event in sent]


def test_links_and_anchors_lead_somewhere():
    lost = []
    for page in PAGES:
        for link in parsed(SITE / page).addresses:
            if "://" in link or link.startswith(("mailto:", "data:", "javascript:", "//")):
                continue
            target, anchor = urldefrag(link)
            target = target.partition("?")[0]
            path = (SITE / page).parent / unquote(target) if target else SITE / page
            path = path.resolve()
            known = path.is_file() and (
                not anchor or path.suffix != ".html" or unquote(anchor) in parsed(path).anchors
            )
            if not known:
                lost.append((page, link))
    assert lost == []


def test_options_of_commands_have_two_hyphens():
    page = (SITE / "api/cli.html").read_text("utf-8")
    assert "pylyap spectrum --plot spectrum.png" in page
    assert "–plot" not in page


def test_pages_load_nothing_from_other_hosts():
    """Links to other sites are fine; scripts, styles and pictures are not."""
    for page in PAGES:
        for pictures in parsed(SITE / page).pictures:
            assert "://" not in (pictures.get("src") or ""), page


@needs_browser
@pytest.mark.parametrize("page", OPENED)
def test_page_in_a_browser(browser, address, page):
    set_width(browser, NARROW)
    requests(browser)
    browser.get(f"{address}/{page}")
    errors = [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]
    assert errors == []
    assert [u for u in requests(browser) if not u.startswith((address, "data:", "chrome:"))] == []
    for width in (NARROW, WIDE):
        set_width(browser, width)
        found = browser.execute_script("return document.documentElement.scrollWidth")
        assert found <= width, f"{found} pixels at a width of {width}"
    assert browser.execute_script(UNNAMED_PICTURES) == []
    assert browser.execute_script(BROKEN_PICTURES) == []


@needs_browser
def test_formulas_are_typeset_and_within_reach(browser, address):
    set_width(browser, NARROW)
    for page in (p for p in PAGES if p.startswith("theory/") and not p.endswith("index.html")):
        browser.get(f"{address}/{page}")
        typeset, wrong, left = browser.execute_script(FORMULAS)
        assert typeset > 0, page
        assert wrong == 0, page
        assert left >= 0, page
        assert browser.execute_script(COVERED) == 0, f"numbers lie over formulas of {page}"


@needs_browser
@pytest.mark.parametrize(
    ("text", "page"),
    [("Ginelli", "theory/ginelli"), ("perturbation_ensemble", "perturbation_ensemble")],
)
def test_search_works_without_a_network(browser, address, text, page):
    set_width(browser, WIDE)
    browser.get(f"{address}/search.html?q={text}")
    links = "return [...document.querySelectorAll('#search-results li a')].map(a => a.href)"
    wait = WebDriverWait(browser, 20)
    assert any(page in link for link in wait.until(lambda b: b.execute_script(links)))
