"""The compiled core: which build is picked, what importing costs, how it is interrupted."""

import os
import platform
import signal
import subprocess
import sys
import threading
from importlib import metadata, resources

import numpy as np
import pytest

import pylyap as pl
from pylyap import _native, _parallel

X86 = platform.machine().lower() in ("x86_64", "amd64")

REPORT = """
import numpy as np, pylyap as pl
net = pl.Network((4, 6, 3), activation="sigmoid", loss="cross_entropy")
system = pl.TrainingMap(net, *pl.datasets.iris(), pl.GradientDescent(lr=0.5))
s = pl.lyapunov_spectrum(system, net.init("normal", seed=0), 20, k=4)
from pylyap import _native
print(_native.isa)
print(*s.exponents, sep=" ")
"""


def python(code, isa=None):
    environment = {name: value for name, value in os.environ.items() if name != "PYLYAP_ISA"}
    if isa is not None:
        environment["PYLYAP_ISA"] = isa
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=os.sep,
    )


@pytest.mark.parametrize("isa", ["avx512", "V3", " base"])
def test_an_unknown_instruction_set_is_a_clear_import_error(isa):
    done = python("import pylyap", isa)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    for word in ("PYLYAP_ISA", "base", "v3", repr(isa)):
        assert word in last


@pytest.mark.skipif(not X86, reason="other architectures have one build")
@pytest.mark.parametrize("isa", ["v3", "v4"])
def test_all_builds_compute_the_same_numbers(isa):
    if not {"base", isa} <= set(_native.available()):
        pytest.skip("not built")
    reports = [python(REPORT, "base"), python(REPORT, isa)]
    if isa not in _native.runnable():  # an old processor: it must say so, and not trap
        assert "ImportError" in reports[1].stderr
        assert "PYLYAP_ISA" in reports[1].stderr
        return
    names, exponents = zip(*(r.stdout.splitlines() for r in reports), strict=True)
    assert names == ("base", isa)
    base, other = (np.array(line.split(), dtype=float) for line in exponents)
    # FMA rounds differently; twenty steps that stretch little
    np.testing.assert_allclose(other, base, rtol=1e-11, atol=1e-13)


def test_the_default_build_is_the_best_that_runs():
    done = python(REPORT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == _native.runnable()[-1]


def test_importing_stays_light():
    heavy = {"numba", "matplotlib", "xarray", "dask", "pandas", "click", "rich", "tqdm", "netCDF4"}
    code = f"import sys, pylyap; print(*[m for m in {heavy} if m in sys.modules])"
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_every_public_name_is_there():
    names = {"Network", "TrainingMap", "DiscreteMap", "GradientDescent", "Adam", "datasets"}
    names |= {"lyapunov_spectrum", "ftle", "kaplan_yorke_dimension", "__version__"}
    for name in names:
        assert hasattr(pl, name)
        assert name == "__version__" or name in pl.__all__
    assert pl.__version__ == metadata.version("pylyap")


def test_the_package_is_typed():
    assert resources.files("pylyap").joinpath("py.typed").is_file()
    assert resources.files("pylyap").joinpath("_core.pyi").is_file()


@pytest.mark.parametrize("start", [2**63 - 1, 2**63 - 2])
def test_an_index_that_overflows_on_the_way_is_refused_and_not_a_crash(start):
    done = python(f"""
import numpy as np, pylyap as pl
net = pl.Network((2, 1))
optimizer = pl.GradientDescent(batch_size=2)
system = pl.TrainingMap(net, np.ones((5, 2)), np.ones(5), optimizer)
for call in (system.trajectory, lambda *a, **o: pl.lyapunov_spectrum(system, *a, **o)):
    try:
        call(np.ones(3), 3, start={start})
    except ValueError as error:
        print(error)
""")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("start" in line for line in lines)


HOURS = """
import pylyap as pl
net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
system = pl.TrainingMap(net, *pl.datasets.iris(), pl.GradientDescent(lr=0.5))
w = net.init("normal", runs=4, seed=0)
doubling = pl.DiscreteMap(lambda x: x, lambda x: [[2.0]], 1)
batches = pl.DiscreteMap(lambda X: X, n=1, tangent=lambda X, V: 2.0 * V, vectorized=True)
pl.perturbation_ensemble(doubling, [0.0], 0.1, 2, 10)  # loads Numba's kernels
calls = [
    lambda: pl.lyapunov_spectrum(system, w, 10**8, record_every=10**7),
    lambda: pl.lyapunov_spectrum(system, w, 10**8, record_every=10**7, threads=1),
    lambda: pl.lyapunov_spectrum(system, w[0], 10**8, k=3, record_every=10**7),
    lambda: pl.ftle(system, w, 10**8, window=10**7, k=5, kind="svd"),
    lambda: system.trajectory(w, 10**9, every=10**8),
    lambda: pl.lyapunov_spectrum(doubling, [0.0], 10**7, record_every=10**6),
    lambda: pl.lyapunov_spectrum(doubling, [0.0], 10**7, record_every=10**6, progress=True),
    lambda: pl.lyapunov_spectrum(batches, [[0.0], [1.0]], 10**7, record_every=10**6),
    lambda: pl.perturbation_ensemble(batches, [0.0], 0.1, 2, 10**8, record_every=10**7),
]
for i, call in enumerate(calls):
    try:
        print("started", i, flush=True)
        call()
    except KeyboardInterrupt:
        print("interrupted", i, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_ctrl_c_stops_hours_of_work(tmp_path):
    with (
        open(tmp_path / "errors", "w+", encoding="utf-8") as errors,
        subprocess.Popen(
            [sys.executable, "-c", HOURS], stdout=subprocess.PIPE, stderr=errors, text=True,
            cwd=os.sep,
        ) as process,
    ):  # fmt: skip
        timer = threading.Timer(300, process.kill)  # the work takes hours
        timer.start()
        try:
            for i in range(HOURS.count("lambda: ")):
                assert process.stdout.readline() == f"started {i}\n"
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.2)  # it is at work
                process.send_signal(signal.SIGINT)
                assert process.stdout.readline() == f"interrupted {i}\n"
            assert process.stdout.read() == ""
            assert process.wait() == 0
        except AssertionError as error:
            errors.seek(0)
            raise AssertionError(errors.read()) from error
        finally:
            timer.cancel()
            process.kill()


@pytest.mark.parametrize("threads", [1, 2, 3, 1000, 2**40])
def test_there_are_never_more_threads_than_cores(threads, monkeypatch):
    monkeypatch.setattr(_parallel, "available_threads", lambda: 2)
    seen, together = [], threading.Barrier(min(threads, 2))

    def work(task):
        together.wait(60)  # as many as are allowed do work at once
        seen.append((threading.current_thread(), task.workers))

    _parallel.over_runs(work, 40, threads=threads, cost=1e9)
    assert len({thread for thread, _ in seen}) == min(threads, 2)
    seen.clear()
    together = threading.Barrier(1)
    _parallel.over_runs(work, 1, threads=threads, cost=1e9)  # a team inside one run
    assert [workers for _, workers in seen] == [min(threads, 2)]


def test_the_interpreter_is_free_while_the_core_works():
    code = """
import threading, pylyap as pl
net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
system = pl.TrainingMap(net, *pl.datasets.iris(), pl.GradientDescent(lr=0.5))
w = net.init("normal", seed=0)
turns, stop = 0, threading.Event()
def count():
    global turns
    while not stop.wait(0.001):
        turns += 1
counter = threading.Thread(target=count)
counter.start()
before = turns
pl.lyapunov_spectrum(system, w, 1000, threads=1)
during = turns - before
stop.set()
counter.join()
print(during)
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5  # a lock held throughout would leave 0 or 1
