"""Figures and reports of studies, complete or not."""

import re
import shutil
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from toys import Toy, prepare, to_format_1, toy

import pylyap as pl

pytest.importorskip("matplotlib")
pytest.importorskip("xarray")
pytest.importorskip("zarr")
pytest.importorskip("jinja2")
cli = pytest.importorskip("pylyap.cli")

from pylyap.studies import report, store, summary  # noqa: E402
from pylyap.studies.tables import VARIABLES  # noqa: E402
from pylyap.studies.work import compute  # noqa: E402

SCRIPT = "<script>alert(1)</script>"
DIVERGENT = {"optimizer.lr": [1e90, 1e99], "network.activation": ["identity"]}
ANALYSES = {
    "spectrum": {"n_steps": 8, "k": 2, "record_every": 2},
    "ftle": {"n_steps": 8, "k": 2, "window": 2},
    "clv": {"n_steps": 8, "k": 3},
    "training_jacobian": {"n_steps": 8},
    "ensemble": {"n_steps": 30, "n_perturbations": 2, "eps": [1e-8, 1e-4]},
    "train": {"epochs": 4},
    "scan": {"n_steps": 40, "lrs": [0.1, 0.5, 1e9], "n_perturbations": 1},
}
GRID = {"network.activation": ["relu", "tanh"], "init.scale": [0.5, 1.0]}


pytestmark = pytest.mark.usefixtures("no_fsync", "low_resolution")


@pytest.fixture
def low_resolution(monkeypatch):
    """Write small images, which are fast."""
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "savefig.dpi", 30)


def small(name, grid=GRID, runs=3, kind=pl.Study, title="", **analysis):
    data = {"name": "quadratic", "n": 12} | ({"test": 4} if name == "train" else {})
    given = {k: v for k, v in ANALYSES[name].items() if f"analysis.{k}" not in grid}
    return kind(
        title=title,
        data=data,
        network={"hidden": 2},
        analysis={"name": name} | given | analysis,
        runs=runs,
        grid=grid,
    )


def finished(path, study):
    pl.run_study(study, prepare(path, study, max(study.runs, 1)))
    return path


@pytest.fixture(scope="module", params=list(ANALYSES))
def each(request, tmp_path_factory):
    """An analysis, and the folder of a study of it."""
    return request.param, finished(tmp_path_factory.mktemp("each") / "s", small(request.param))


def title(figure):
    """Title of a figure."""
    return figure.legends[0].get_title().get_text() if figure.legends else figure.get_suptitle()


def lines_of(ax):
    return [line.get_ydata() for line in ax.get_lines()]


class Page(HTMLParser):
    """Elements and text of a page."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.words = [], []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def content(self):
        return " ".join(" ".join(self.words).split())


def page_of(path, folder):
    pl.studies.report_study(path, folder / "page.html")
    return Page(folder / "page.html")


# ------------------------------------------------------------------------------------ quantities


def test_quantities(tmp_path):
    data = pl.open_study(finished(tmp_path / "s", small("spectrum", runs=5)))
    numbers = summary.quantities(data)
    assert numbers["final loss"].dims == ("activation", "scale", "run")
    assert_array_equal(numbers["final loss"], data["final_loss"])
    assert_array_equal(numbers["exponent 2"], data["exponents"][..., 1])
    rows = list(summary.rows(numbers))
    assert [row.point for row in rows[:2]] == [["relu", "0.5"], ["relu", "1"]]
    assert [(row.runs, row.diverged, row.failed) for row in rows] == [(5, 0, 0)] * 4
    expected = np.quantile(data["final_loss"].values[1, 1], (0.25, 0.5, 0.75))
    assert_allclose(rows[3].quartiles[0], expected)


def test_quantities_of_training(tmp_path):
    grid = {
        "optimizer.lr": [0.1, 1e90],
        "analysis.epochs": [2, 4],
        "network.activation": ["identity"],
    }
    study = small("train", grid)
    data = pl.open_study(finished(tmp_path / "s", study))
    numbers = summary.quantities(data)
    loss = data["train_loss"].values
    assert_array_equal(numbers["training loss"][0, 0, 0], loss[0, 0, 0, :, 2])
    assert_array_equal(numbers["training loss"][0, 1, 0], loss[0, 1, 0, :, 4])
    assert (data["status"][1] == 1).all()
    assert numbers["training loss"][1].isnull().all()
    assert_array_equal(
        numbers["rms deviation"][0, 1, 0], data["deviation"].values[0, 1, 0, :, 0, 4]
    )


def test_growth_is_per_step(tmp_path):
    study = small("ensemble", {}, n_steps=60, record_every=2)
    data = pl.open_study(finished(tmp_path / "s", study))
    numbers = summary.quantities(data)
    assert numbers["growth"].dims == ("eps", "run")
    assert_allclose(numbers["growth"], data["growth_slope"].values.T / 2)
    assert_array_equal(numbers["final distance"], data["distances"].values[:, :, -1].T)


def test_the_smallest_angle_in_degrees(tmp_path):
    data = pl.open_study(finished(tmp_path / "s", small("clv", {})))
    smallest = np.degrees(data["angles"].values.min(axis=(1, 2)))
    assert_allclose(summary.quantities(data)["smallest angle"], smallest)


def test_a_study_of_an_earlier_version(tmp_path, monkeypatch):
    usual, others = VARIABLES["clv"]
    former = ["mixing" if name == "contamination" else name for name in usual]
    monkeypatch.setitem(VARIABLES, "clv", (former, others))
    path = finished(tmp_path / "s", small("clv", {}))
    monkeypatch.undo()
    data = pl.open_study(path)
    assert "contamination" not in data
    assert data["mixing"].dims == ("run", "vector")
    assert "clv" in pl.plot_study(path)


def test_quantities_do_not_depend_on_blocks(tmp_path, monkeypatch):
    study = small("clv", {"init.scale": [1.0, 2.0]}, runs=7)
    pl.run_study(study, prepare(tmp_path / "s", study, 2))
    data = pl.open_study(tmp_path / "s")
    whole = summary.quantities(data)
    monkeypatch.setattr(summary, "_MAX_VALUES", 1.0)
    assert len(list(summary._blocks(data))) == 4
    assert summary.quantities(data).identical(whole)


# -------------------------------------------------------------------------------------- pictures


def test_figures_of_each_analysis(each):
    name, path = each
    figures = pl.plot_study(path)
    several = 4 if name == "scan" else 2
    own = [f"{name}-{i + 1}" for i in range(several)]
    assert list(figures) == [*own, "distributions", "along"]
    for figure in figures.values():
        assert " runs" in title(figure)
    if name != "scan":
        assert title(figures[f"{name}-2"]) == "activation relu, tanh, initial scale 1, 3 runs each"


def test_figures_show_the_results(tmp_path):
    path = finished(tmp_path / "s", small("spectrum", runs=5))
    data, figures = pl.open_study(path), pl.plot_study(path)
    loss = np.median(data["loss"].values, axis=2)  # (activation, scale, time)
    for i in range(2):
        drawn = lines_of(figures[f"spectrum-{i + 1}"].axes[0])
        assert_allclose(drawn, loss[:, i])
    along = figures["along"].axes[0]
    assert along.get_xlabel() == "initial scale"
    assert_allclose(lines_of(along), np.median(data["final_loss"].values, axis=-1))


@pytest.mark.parametrize("name", ANALYSES)
def test_one_run_without_a_grid(name, tmp_path):
    figures = pl.plot_study(finished(tmp_path / "s", small(name, {}, runs=1)))
    inner = ["along"] if name in ("ensemble", "scan") else []
    assert list(figures) == [name, *inner]
    assert title(figures[name]).endswith("1 run") or name in ("ensemble", "scan")
    for figure in figures.values():
        figure.draw_without_rendering()


@pytest.mark.parametrize("name", [name for name in ANALYSES if name != "scan"])
def test_all_runs_diverged(name, tmp_path):
    path = finished(tmp_path / "s", small(name, DIVERGENT))
    assert pl.open_study(path).attrs["runs_diverged"] == 6
    figures = pl.plot_study(path)
    for figure in figures.values():
        assert title(figure).endswith("3 runs each; 6 diverged")
        figure.draw_without_rendering()


def test_shorter_analyses_have_their_own_pictures(tmp_path):
    study = small("spectrum", {"analysis.n_steps": [4, 8], "optimizer.lr": [0.1, 0.2]})
    figures = pl.plot_study(finished(tmp_path / "s", study))
    lengths = [len(lines_of(figures[f"spectrum-{i}"].axes[0])[0]) for i in (1, 2)]
    assert lengths == [3, 5]
    assert title(figures["spectrum-1"]) == "learning rate 0.1, 0.2, 4 steps, 3 runs each"


def test_large_grids_are_subsampled(tmp_path):
    grid = {"optimizer.lr": {"linspace": [0.1, 0.2, 10]}, "init.scale": {"linspace": [1, 2, 9]}}
    path = finished(tmp_path / "s", small("spectrum", grid, runs=2))
    figures = pl.plot_study(path)
    assert len(figures) == 6 + 2
    assert title(figures["spectrum-6"]) == "learning rate 0.1 … 0.2, initial scale 2, 2 runs each"
    labels = [text.get_text() for text in figures["spectrum-1"].legends[0].get_texts()]
    assert (len(labels), labels[0], labels[-1]) == (8, "learning rate 0.1", "learning rate 0.2")
    assert title(figures["along"]) == (
        "learning rate 0.1 … 0.2, initial scale 1 … 2, 8 of 9 curves, 2 runs each"
    )


def test_number_of_values_is_limited(tmp_path, monkeypatch):
    path = finished(tmp_path / "s", small("spectrum", {}, runs=4))
    monkeypatch.setattr(pl.studies.pictures, "_MAX_VALUES", 40.0)
    figures = pl.plot_study(path)
    assert title(figures["spectrum"]) == "runs 0 to 1, 2 runs"


def test_one_vector_has_no_angles(tmp_path):
    assert list(pl.plot_study(finished(tmp_path / "s", small("clv", {}, k=1)))) == ["distributions"]


def test_mean_distance_of_all_copies(tmp_path):
    path = finished(tmp_path / "s", small("ensemble", {}, keep="all"))
    distances = pl.open_study(path)["distances"].mean("perturbation")  # (run, eps, time)
    drawn = lines_of(pl.plot_study(path)["ensemble"].axes[0])
    assert_allclose(drawn, distances.median("run"))


def test_dollar_signs_are_escaped():
    assert pl.studies.pictures._escape_formula("$x^$") == r"\$x^\$"


def partly_done(path, study, tasks):
    """Create the folder of a study and compute some of its tasks."""
    prepare(path, study, 2)
    with store.driver(path):
        opened = store.Store(path, study)
        for task, _ in zip(opened.tasks(), range(tasks), strict=False):
            opened.write(task, compute(study, *task, threads=1))
        opened.close()
    return path


@pytest.mark.parametrize("name", ANALYSES)
def test_figures_of_an_incomplete_study(name, tmp_path):
    study = small(name, {"init.scale": [0.5, 1.0, 2.0]}, runs=4)
    path = partly_done(tmp_path / "s", study, 2)
    figures = pl.plot_study(path)
    assert title(figures["distributions"]).endswith("4 of 12 runs complete")
    for figure in figures.values():
        figure.draw_without_rendering()


def test_study_without_complete_runs(tmp_path):
    path = partly_done(tmp_path / "s", small("spectrum"), 0)
    with pytest.raises(ValueError, match=r"got '.*' with 0 of 12 complete and 0 failed"):
        pl.plot_study(path)
    page = page_of(path, tmp_path)
    assert "No run is complete yet." in page.content
    assert "Results" not in page.content
    assert not page.all("img")


def test_variables_without_a_figure(tmp_path):
    study = toy()
    path = finished(tmp_path / "s", study)
    with pytest.raises(ValueError, match=r"variables that have a figure, got .*growth"):
        pl.plot_study(path)
    assert "There is no figure for the variables" in page_of(path, tmp_path).content


def test_histograms_share_their_edges():
    values = np.array([[1.0, 2.0, 3.0, np.nan], [-1.0, np.inf, 3.0, 3.0]])
    figure = pl.plotting.plot_distributions({"a": values, "b": values}, labels=["x", "y"])
    one, other = (patch.get_data() for patch in figure.axes[0].patches)
    assert_array_equal(one.edges, other.edges)
    assert (one.edges[0], one.edges[-1]) == (-1.0, 3.0)
    assert_array_equal(one.values, np.histogram([1.0, 2.0, 3.0], one.edges)[0] / 3)
    assert_array_equal(other.values, np.histogram([-1.0, 3.0, 3.0], one.edges)[0] / 3)
    wide = pl.plotting.plot_distributions({"a": [1.0, 10.0, 100.0]}).axes[0]
    assert wide.get_xscale() == "log"
    assert pl.plotting.plot_distributions({"a": [[np.nan]]}).axes[0].patches
    for quantities, message in (
        ({}, "at least one"),
        ({"a": [1.0], "b": [1.0, 2.0]}, "of the same shape"),
        ({"a": 1.0}, "must have 1 or 2 axes, got 'a' of shape"),
    ):
        with pytest.raises(ValueError, match=message):
            pl.plotting.plot_distributions(quantities)
    with pytest.raises(ValueError, match="labels must name 1 curves, got 2"):
        pl.plotting.plot_distributions({"a": [1.0]}, labels=["x", "y"])


def test_quartiles_along_a_setting():
    values = np.array([[3.0, 4.0, 5.0], [1.0, 1.0, np.nan], [9.0, 7.0, 8.0]])
    ax = pl.plotting.plot_along([2.0, 100.0, 1.0], {"a": values}, name="lr").axes[0]
    (line,) = ax.get_lines()
    assert_array_equal(line.get_xdata(), [1.0, 2.0, 100.0])
    assert_array_equal(line.get_ydata(), [8.0, 4.0, 1.0])
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "lr", "a")
    words = pl.plotting.plot_along(["b", "a", "c"], {"a": values}).axes[0]
    assert [text.get_text() for text in words.get_xticklabels()] == ["b", "a", "c"]
    assert_array_equal(lines_of(words)[0], [4.0, 1.0, 8.0])
    with pytest.raises(ValueError, match=r"along must have shape \(3,\), got \(2,\)"):
        pl.plotting.plot_along([1, 2], {"a": values})


def test_finite_time_exponents():
    values = np.random.default_rng(0).normal(size=(2, 5, 4, 3))
    figure = pl.plotting.plot_ftle(values, [0, 5, 10, 15], labels=["a", "b"], leading=2)
    assert len(figure.axes) == 2
    assert_allclose(lines_of(figure.axes[1])[1:], np.median(values[..., 1], axis=1))
    with pytest.raises(ValueError, match=r"steps \(n_windows,\), got \(2, 5, 4, 3\) and \(3,\)"):
        pl.plotting.plot_ftle(values, [0, 5, 10])
    with pytest.raises(ValueError, match="labels must name 2 curves, got 1"):
        pl.plotting.plot_ftle(values, [0, 5, 10, 15], labels=["a"])


# ------------------------------------------------------------------------------------------ page


class Failing(Toy):
    def compute(self, point, first, count, *, threads=1):
        if point[0] == 1:
            raise RuntimeError(f"{SCRIPT} & 'quotes' \"two\"")
        return pl.Study.compute(self, point, first, count, threads=threads)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Report of a study with scripts in all its texts."""
    here = tmp_path_factory.mktemp("hostile")
    kind = type("Failing", (Failing,), {})
    study = small(
        "spectrum", {"optimizer.lr": [0.1, 0.2]}, kind=kind, title=f"{SCRIPT} {{{{ 1 }}}}"
    )
    path = finished(here / "s", study)
    to_format_1(path)  # without checksum, so that the settings can be changed
    metadata = path / "results.zarr" / "zarr.json"
    text = metadata.read_text()
    assert text.count("glorot_uniform") == 1
    metadata.write_text(text.replace("glorot_uniform", SCRIPT))
    return path, page_of(path, here)


def test_every_string_is_escaped(hostile):
    _, page = hostile
    assert not page.all("script")
    assert page.content.count(SCRIPT) >= 4  # title twice, setting, failure
    assert f"{SCRIPT} {{{{ 1 }}}}" in page.content
    assert f"{SCRIPT} & 'quotes' \"two\"" in page.content
    assert "Failures" in page.content
    assert "3 of 6 runs" in page.content


def test_the_page_loads_nothing(hostile):
    _, page = hostile
    without_pictures = re.sub(r"data:image/png;base64,[\w+/=]+", "", page.text)
    assert not re.search(r"https?:|//|@import|url\(|javascript:", without_pictures)
    assert page.all("img")
    for tag, attributes in page.elements:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "action", "data"):
            assert attributes.get(name, "data:").startswith("data:")


def test_accessibility(hostile):
    _, page = hostile
    assert page.all("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in page.all("img"))
    assert all(cell.get("scope") in ("col", "row") for cell in page.all("th"))
    assert len(page.all("main")) == len(page.all("h1")) == len(page.all("title")) == 1


def test_content_of_the_page(each, tmp_path, monkeypatch):
    name, path = each
    monkeypatch.setattr(report, "_png", lambda figure: "")  # drawing is tested above
    page = page_of(path, tmp_path)
    data = pl.open_study(path)
    assert f"Study: {name}" in page.content
    for words in ("12 of 12 runs", data.attrs["instruction_set"], "network.activation", "0.5, 1.0"):
        assert words in page.content
    assert len(page.all("img")) == (6 if name == "scan" else 4)
    first = next(summary.rows(summary.quantities(data)))
    middle = float(first.quartiles[0][1])
    assert f"{middle:.3g}".replace("-", "−") in page.content


# ---------------------------------------------------------------------------------- command line


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("cli") / "s", small("spectrum", {}))


def test_plot_writes_files(folder, tmp_path, capsys):
    assert cli.main(["plot", str(folder)]) == 0
    files = sorted(file.name for file in (folder / "pictures").iterdir())
    assert files == ["distributions.png", "spectrum.png"]
    assert capsys.readouterr().err.count("wrote") == 2
    assert cli.main(["plot", str(folder), "--output", str(tmp_path / "a" / "b"), "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert (tmp_path / "a" / "b" / "spectrum.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main(["plot", str(folder), "--output", str(tmp_path / "all.pdf")]) == 0
    assert (tmp_path / "all.pdf").read_bytes().count(b"/Type /Page ") == 2
    study = small("spectrum", {})
    assert pl.run_study(study, folder).attrs["runs_done"] == 3  # figures in the folder do no harm


def test_report_writes_a_page(folder, tmp_path, capsys):
    assert cli.main(["report", str(folder)]) == 0
    assert capsys.readouterr().err == f"wrote {folder / 'report.html'}\n"
    assert cli.main(["report", str(folder), "--output", str(tmp_path / "a.html"), "--quiet"]) == 0
    assert (tmp_path / "a.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [file.name for file in tmp_path.iterdir()] == ["a.html"]


@pytest.mark.parametrize("name", ["a.html", "a.pdf", "a.nc", "a/"])
def test_a_full_disk_keeps_the_old_file(name, folder, tmp_path, capsys):
    """With a limit on the size of files, which acts like a full disk."""
    resource = pytest.importorskip("resource")
    command = {"html": "report", "nc": "export"}.get(name.rpartition(".")[2], "plot")
    file = tmp_path / name
    if "/" in name:
        file = tmp_path / "a" / "spectrum.png"
        file.parent.mkdir()
    file.write_text("old")
    file.chmod(0o600)
    output = [str(file.parent if "/" in name else file)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        flags = [] if command == "export" else ["--output"]
        assert cli.main([command, str(folder), *flags, *output]) == 3
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert error.startswith(f"pylyap: cannot write {output[0]}: File too large")
    assert [path.read_text() for path in file.parent.iterdir()] == ["old"]
    assert cli.main([command, str(folder), *flags, *output]) == 0
    assert file.read_bytes() != b"old"
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plot", "nowhere"], "path must be the folder of a study, got 'nowhere'"),
        (["report", "nowhere"], "path must be the folder of a study, got 'nowhere'"),
        (["plot", "{s}", "--output", "{s}/tasks.log"], "must be a folder or a .pdf file, got"),
        (["plot", "{s}", "--output", "{s}/tasks.log/x"], "cannot write"),
        (["plot", "{s}", "--output", "nowhere/a.pdf"], "must be in a directory that exists"),
        (["plot", "{s}", "--output", "a.svg"], "must be a folder or a .pdf file, got 'a.svg'"),
        (["report", "{s}", "--output", "a.txt"], "must end in one of .html"),
        (["report", "{s}", "--output", "nowhere/a.html"], "must be in a directory that exists"),
    ],
)
def test_errors_are_one_line(words, message, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main([word.format(s=folder) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pylyap: ")
    assert error.count("\n") == 1
    assert message in error
    assert not list(tmp_path.iterdir())


def test_a_damaged_chunk_is_an_error(folder, tmp_path, capsys):
    path = tmp_path / "s"
    left_out = shutil.ignore_patterns("pictures", "report.html")
    shutil.copytree(folder, path, ignore=left_out)
    chunk = next((path / "results.zarr" / "final_loss").glob("c*"))
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    for command in ("plot", "report"):
        assert cli.main([command, str(path)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (path / "pictures").exists()
    assert not (path / "report.html").exists()


def test_without_jinja2(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match="needs Jinja2: pip install"):
        pl.report_study(folder, tmp_path / "a.html")


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ([0.1, 0.2], "over the runs. Colours: "),
        ([0.1, 0.2, 0.3, 0.4], "the line is the median. Rows: "),
    ],
)
def test_captions_of_distributions_say_how_curves_are_drawn(tmp_path, rates, words):
    folder = finished(tmp_path / "s", small("spectrum", {"optimizer.lr": rates}))
    pl.report_study(folder, tmp_path / "r.html")
    assert f"{words}learning rate." in (tmp_path / "r.html").read_text("utf-8")
