"""Commands that install optional packages, for each way in which pylyap can be installed."""

import json
import sys
from importlib.metadata import Distribution, PackageNotFoundError

import pytest

import pylyap as pl
from pylyap import _extras

METADATA = """\
Metadata-Version: 2.1
Name: pylyap
Version: 0.1.0
Provides-Extra: plot
Provides-Extra: store
Provides-Extra: report
Requires-Dist: numpy>=2.0
Requires-Dist: matplotlib>=3.9; extra == "plot"
Requires-Dist: xarray>=2025.1; extra == 'store'
Requires-Dist: zarr>=3.1.6; (python_version >= "3.11") and extra == "store"
Requires-Dist: pylyap[plot,store]; extra == "report"
Requires-Dist: Jinja2>=3.1; extra == "report"
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Function that makes pylyap look installed with the given direct_url.json."""
    folder = tmp_path / "pylyap-0.1.0.dist-info"
    folder.mkdir()

    def install(origin=None, installer="pip", record="pylyap/__init__.py,,\n"):
        (folder / "METADATA").write_text(METADATA)
        (folder / "INSTALLER").write_text(f"{installer}\n")
        (folder / "RECORD").write_text(record)
        if origin is not None:
            text = origin if isinstance(origin, str) else json.dumps(origin)
            (folder / "direct_url.json").write_text(text)
        monkeypatch.setattr(_extras, "distribution", lambda name: Distribution.at(folder))

    return install


def test_from_an_index(installed):
    installed()
    assert _extras.install_command("plot") == "pip install 'pylyap[plot]'"


def test_from_a_folder(installed, tmp_path):
    # PEP 610: a local directory has dir_info, an editable one editable: true.
    folder = tmp_path / "my clones" / "pylyap"
    folder.mkdir(parents=True)
    installed({"url": folder.as_uri(), "dir_info": {"editable": True}})
    assert _extras.install_command("plot") == f"pip install -e '{folder}[plot]'"
    installed({"url": folder.as_uri(), "dir_info": {}})
    assert _extras.install_command("plot") == f"pip install '{folder}[plot]'"


def test_from_a_wheel_that_is_there_or_not(installed, tmp_path):
    wheel = tmp_path / "pylyap-0.1.0-cp311-cp311-linux_x86_64.whl"
    installed({"url": wheel.as_uri(), "archive_info": {}})
    assert _extras.install_command("plot") == "pip install 'matplotlib>=3.9'"
    wheel.touch()
    assert _extras.install_command("plot") == f"pip install '{wheel}[plot]'"


def test_from_a_repository(installed):
    vcs = {"vcs": "git", "commit_id": "0123abc", "requested_revision": "main"}
    installed({"url": "https://example.org/pylyap.git", "vcs_info": vcs})
    expected = "pip install 'pylyap[plot] @ git+https://example.org/pylyap.git@0123abc'"
    assert _extras.install_command("plot") == expected


@pytest.mark.parametrize(
    "how",
    [
        {"installer": "conda"},
        {"record": ""},  # metadata beside a source tree
        {"origin": "{damaged"},
        {"origin": {"url": 7}},
        {"origin": {"dir_info": {}}},
        {"origin": []},
    ],
)
def test_from_elsewhere_the_requirements_are_listed(installed, how):
    installed(**how)
    assert _extras.install_command("plot", "matplotlib") == "pip install 'matplotlib>=3.9'"
    expected = "pip install 'matplotlib>=3.9' 'xarray>=2025.1' 'zarr>=3.1.6' 'Jinja2>=3.1'"
    assert _extras.install_command("report", "jinja2") == expected


def test_without_metadata_or_extra_the_projects_are_named(installed, monkeypatch):
    installed()
    assert _extras.install_command(None, "sklearn") == "pip install scikit-learn"

    def none(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(_extras, "distribution", none)
    assert _extras.install_command("images", "PIL") == "pip install Pillow"


def test_require_tells_missing_from_broken(tmp_path, monkeypatch):
    (tmp_path / "pylyap_broken.py").write_text("raise ImportError('no libfoo.so')")
    (tmp_path / "pylyap_needs.py").write_text("import pylyap_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    _extras.require("json", extra=None, for_="it")
    assert _extras.missing("json", "pylyap_not_there", "pylyap_not_there.a") == [
        "pylyap_not_there",
        "pylyap_not_there.a",
    ]
    with pytest.raises(ModuleNotFoundError) as caught:
        _extras.require("json", "pylyap_not_there", extra=None, for_="it")
    assert caught.value.name == "pylyap_not_there"
    assert str(caught.value) == (
        "it needs json and pylyap_not_there: pip install json pylyap_not_there"
    )
    for module, reason in (
        ("pylyap_broken", "no libfoo.so"),
        ("pylyap_needs", "No module named 'pylyap_not_there'"),
    ):
        with pytest.raises(ImportError) as caught:
            _extras.require(module, extra="plot", for_="it")
        assert str(caught.value) == f"it needs {module}, but {module} cannot be imported: {reason}"


def spectrum():
    X, y = pl.datasets.quadratic(10)
    system = pl.TrainingMap(pl.Network((2, 2, 1)), X, y, pl.GradientDescent(lr=0.1))
    return pl.lyapunov_spectrum(system, system.network.init(runs=2, seed=0), n_steps=10, k=2)


@pytest.mark.parametrize(
    ("module", "extra", "call"),
    [
        ("matplotlib", "plot", lambda: pl.plotting.plot_spectrum(spectrum())),
        ("matplotlib", "plot", lambda: spectrum().plot()),
        ("xarray", "store", lambda: spectrum().to_dataset()),
        ("h5netcdf", "store", lambda: spectrum().save("s.nc")),
        ("PIL", "images", lambda: pl.letter_mask((20, 20), "a")),
        ("pandas", "tables", lambda: pl.datasets.table("t.csv", target="b")),
        ("pyarrow", "tables", lambda: pl.datasets.table("t.parquet", target="b")),
    ],
)
def test_what_misses_a_package_says_how_to_install_it(module, extra, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("t.csv", "t.parquet"):
        (tmp_path / name).write_text("a,b\n1,2\n2,3\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError) as caught:
        call()
    assert _extras.install_command(extra, module) in str(caught.value)
