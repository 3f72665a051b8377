"""Pages of studies in a browser without a window."""

import json
import shutil

import pytest
from toys import prepare

import pylyap as pl

selenium = pytest.importorskip("selenium.webdriver")
pytest.importorskip("matplotlib")
pytest.importorskip("xarray")
pytest.importorskip("zarr")
pytest.importorskip("jinja2")
from selenium.common.exceptions import NoAlertPresentException  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="Chromium and its driver are not installed"
)

TITLE = "<script>alert(1)</script><img src=x onerror=alert(2)> & \"widths\" 'α'"


@pytest.fixture(scope="module")
def browser():
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-extensions"):
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = selenium.Chrome(options, selenium.ChromeService(DRIVER))
    driver.set_network_conditions(offline=True, latency=0, throughput=0)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Of a study with a title that would be a script, one of whose rates is too large."""
    study = pl.Study(
        title=TITLE,
        data={"name": "quadratic", "n": 12},
        network={"hidden": 2, "activation": "identity"},
        analysis={"name": "spectrum", "n_steps": 8, "k": 2, "record_every": 2},
        runs=3,
        grid={"optimizer.lr": [0.1, 1e99]},
    )
    folder = tmp_path_factory.mktemp("browser")
    pl.run_study(study, prepare(folder / "s", study, study.runs))
    pl.report_study(folder / "s", folder / "page.html")
    return folder / "page.html"


def requests(browser):
    """Addresses that were asked for since the last look."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event for event in events if event["method"] == "Network.requestWillBeSent"]
    return [event["params"]["request"]["url"] for event in sent]


def test_opens_offline_and_asks_for_nothing(browser, page):
    requests(browser)
    browser.get(page.as_uri())
    others = [url for url in requests(browser) if not url.startswith("data:")]
    assert others == [page.as_uri()]
    assert browser.get_log("browser") == []


def test_all_pictures_are_shown(browser, page):
    browser.get(page.as_uri())
    widths = browser.execute_script("return [...document.images].map(i => i.naturalWidth)")
    assert len(widths) >= 3
    assert min(widths) > 300


def test_names_are_words_and_no_elements(browser, page):
    browser.get(page.as_uri())
    with pytest.raises(NoAlertPresentException):
        browser.switch_to.alert  # noqa: B018
    assert browser.title == TITLE
    assert browser.find_element("tag name", "h1").text == TITLE
    assert browser.find_elements("tag name", "script") == []
    assert "diverged\n3\n" in browser.find_element("tag name", "main").text


@pytest.mark.parametrize("width", [420, 1400])
def test_fits_the_window(browser, page, width):
    browser.set_window_size(width, 900)
    browser.get(page.as_uri())
    sizes = "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
    shown, room = browser.execute_script(sizes)
    assert room <= width
    assert shown == room
