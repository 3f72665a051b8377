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

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
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


@pytest.fixture
def at(browser, page):
    """Function that opens the page at a width, in light or dark."""

    def open_page(width, scheme="light", height=900):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        browser.get(page.as_uri())
        return lambda script: browser.execute_script(script)

    yield open_page
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


WIDTHS = [420, 800, 1400]
BOXES = (
    "const box = e => e.getBoundingClientRect();const all = s => [...document.querySelectorAll(s)];"
)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_the_window(at, browser, width, scheme):
    ask = at(width, scheme)
    shown, room = ask("const e = document.documentElement; return [e.scrollWidth, e.clientWidth]")
    assert room <= width
    assert shown == room
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", WIDTHS)
def test_results_come_before_settings(at, width):
    heads = at(width)(f"{BOXES} return all('h2').map(h => [h.innerText, box(h).top])")
    assert [name for name, _ in heads] == ["Results", "Figures", "Settings"]
    assert [top for _, top in heads] == sorted(top for _, top in heads)
    first = at(width)(f"{BOXES} return box(document.querySelector('.results')).top")
    assert first < 450  # on the first screen


@pytest.mark.parametrize(
    ("width", "columns"), [(420, 1), (800, 1), (1199, 1), (1201, 2), (1400, 2)]
)
def test_figures_use_the_width(at, width, columns):
    ask = at(width)
    pictures = ask(f"{BOXES} return all('img').map(i => [box(i).left, box(i).width, box(i).top])")
    rooms = ask(f"{BOXES} return all('.picture').map(p => box(p).width)")
    lefts = {round(left) for left, *_ in pictures}
    assert len(lefts) == columns
    for (_, wide, _), room in zip(pictures, rooms, strict=True):
        if width > 700:
            assert wide == pytest.approx(room, abs=1)
        else:  # as legible as on a larger screen, and scrolled inside their box
            assert wide >= 650
            assert room < width
    assert sum(rooms[:columns]) > 0.85 * width
    captions = ask("return [...document.querySelectorAll('figcaption')].map(c => c.innerText)")
    assert captions[0].endswith("Colours: learning rate 0.1, 1e+99.")
    assert captions[1].endswith("Colours: learning rate.")


def test_the_table_scrolls_inside_its_box(at):
    ask = at(420)
    table = "document.querySelector('.results')"
    shown, room = ask(f"return [{table}.scrollWidth, {table}.clientWidth]")
    assert shown > room
    # The point of the grid stays where it is.
    left = "return document.querySelector('.results tbody th').getBoundingClientRect().left"
    before = ask(left)
    ask(f"{table}.scrollLeft = 200")
    assert ask(f"return {table}.scrollLeft") > 50
    assert ask(left) == before
    heads = ask("return [...document.querySelectorAll('.results thead th')].map(c => c.innerText)")
    assert heads[:3] == ["learning rate", "runs", "diverged"]


def test_hints_on_a_phone_only(at):
    hints = "return [...document.querySelectorAll('.hint')].map(h => getComputedStyle(h).display)"
    assert set(at(1400)(hints)) == {"none"}
    assert "none" not in at(420)(hints)


def test_light_and_dark(at):
    colours = (
        "const s = getComputedStyle(document.body);"
        "const t = getComputedStyle(document.querySelector('.results td'));"
        "return [s.color, s.backgroundColor, t.color, t.backgroundColor]"
    )

    def brightness(text):
        red, green, blue = (float(part) for part in text.strip("rgb()").split(",")[:3])
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for scheme, sign in (("light", 1), ("dark", -1)):
        found = [brightness(text) for text in at(800, scheme)(colours)]
        for front, back in zip(found[::2], found[1::2], strict=True):
            assert sign * (back - front) > 100
