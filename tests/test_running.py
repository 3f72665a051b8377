"""Running a study: executors, signals, failures, and the command line."""

import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from kill_study import assert_same_as_uninterrupted, kill_again_and_again, start, write_study
from test_store import assert_whole
from toys import Deep, Toy, begun, edit_metadata, prepare, toy

import pylyap as pl

pytest.importorskip("zarr")
pytest.importorskip("xarray")
cli = pytest.importorskip("pylyap.cli")

from pylyap.studies import display, executors, records, running, store  # noqa: E402
from pylyap.studies.executors import pool  # noqa: E402
from pylyap.studies.results import progress  # noqa: E402

WAIT = 180  # seconds, ample for a busy machine


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A real study: the study, its file, and a folder with uninterrupted results."""
    here = tmp_path_factory.mktemp("real")
    study = write_study(here / "study.toml", 300)
    pl.run_study(study, here / "alone")
    return study, here / "study.toml", here / "alone"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def start_toy(folder, who="threads", **title):
    """Run a toy study in another process with its own process group, like a job of a terminal."""
    script = Path(__file__).with_name("toys.py")
    command = [sys.executable, script, str(folder), json.dumps(title), who]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_until(true):
    for _ in range(WAIT * 100):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("timeout")


def done_tasks(folder):
    return len(list(records.read(folder / "tasks.log")))


# ------------------------------------------------------------------------------------- executors


@pytest.mark.usefixtures("many_cores")
def test_number_of_threads(tmp_path):
    study = toy(log=str(tmp_path / "log"))
    now, most, lock = [0], [0], threading.Lock()

    class Counted(Toy):
        def compute(self, point, first, count, *, threads=1):
            from threadpoolctl import threadpool_info

            assert threads == 1
            blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
            assert {pool["num_threads"] for pool in blas} <= {1}
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.02)
            with lock:
                now[0] -= 1
            return super().compute(point, first, count)

    path = prepare(tmp_path / "s", study, 4)
    data = pl.run_study(toy(kind=Counted), path, workers=3)
    assert data.attrs["runs_failed"] == 0
    assert most == [3]


def test_a_single_task_uses_all_threads(tmp_path):
    study = toy(rates=[0.1], activations=["tanh"], log=str(tmp_path / "log"))
    prepare(tmp_path / "s", study, 10)
    pl.run_study(study, tmp_path / "s", workers=2)
    assert (tmp_path / "log").read_text().split()[-1] == "2"


def test_number_of_submitted_tasks_is_bounded(tmp_path):
    futures, out = [], []

    class Counting(ThreadPoolExecutor):
        def submit(self, *args, **kwargs):
            futures.append(super().submit(*args, **kwargs))
            out.append(sum(not future.done() for future in futures))
            return futures[-1]

    with Counting(2) as pool:
        study = toy(seconds=0.001)
        assert_whole(pl.run_study(study, prepare(tmp_path / "s", study, 1), executor=pool), study)
    assert len(out) == 40
    assert max(out) <= 4


def test_process_pool(tmp_path):
    study = toy()
    path = prepare(tmp_path / "s", study, 4)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert_whole(pl.run_study(study, path, executor=pool), study)
        assert not any(str(os.getpid()) in worker for worker in workers(path))
        # A killed worker breaks the pool; completed tasks stay stored.
        larger = toy(runs=20, seconds=0.05)
        threading.Timer(0.3, lambda: os.kill(next(iter(pool._processes)), 9)).start()
        with pytest.raises(
            ConnectionError, match=r"executor failed with BrokenProcessPool.*run the study"
        ):
            pl.run_study(larger, path, executor=pool, extend=True)
    assert 40 <= progress(path).done < 80
    assert_whole(pl.run_study(larger, path), larger)


def test_workers_of_another_instruction_set(tmp_path, monkeypatch):
    study = toy()
    path = prepare(tmp_path / "s", study, 10)
    theirs = {"pylyap": pl.__version__, "instruction_set": "other"}
    monkeypatch.setattr(running.work, "environment", lambda: theirs)
    for executor in (None, ThreadPoolExecutor(1)):
        with pytest.raises(
            ValueError, match=r"mixed must be True to combine results of .*set other"
        ):
            pl.run_study(study, path, executor=executor)
    assert done_tasks(path) == 0
    data = pl.run_study(study, path, mixed=True)
    assert data.attrs["environments"] == f"pylyap {pl.__version__}, other"


@pytest.fixture(scope="module")
def running_cluster(tmp_path_factory):
    """A function that returns the Dask cluster of this module, a new one if it was killed."""
    pytest.importorskip("distributed")
    clusters = []

    def cluster():
        if not clusters or not clusters[-1].is_running:
            clusters.append(Cluster(tmp_path_factory.mktemp("dask")))
        return clusters[-1]

    yield cluster
    for one in clusters:
        one.stop()


@pytest.fixture(scope="module", params=["processes", "dask"])
def elsewhere(request):
    """An executor whose worker is another process: a process pool or a Dask client."""
    if request.param == "processes":
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            yield pool
        return
    distributed = pytest.importorskip("distributed")
    address = request.getfixturevalue("running_cluster")().address
    with distributed.Client(address, set_as_default=False) as client:
        yield client


@pytest.mark.filterwarnings("ignore")  # of Dask
@pytest.mark.parametrize("where", ["task", "setup"])
def test_exceptions_with_a_deep_traceback_are_returned_as_text(tmp_path, elsewhere, where):
    """An exception that Dask pickles with its traceback would block the driver forever."""
    study = toy(kind=Deep, where=where, driver=os.getpid())
    path, kind = prepare(tmp_path / "s", study, 10), "Stop" if where == "task" else "RuntimeError"
    ended = []

    def run_it():
        with pytest.raises(ConnectionError, match=f"executor failed with {kind}: deep tr") as lost:
            pl.run_study(study, path, executor=elsewhere)
        ended.append(lost.value)

    thread = threading.Thread(target=run_it, daemon=True)
    thread.start()
    thread.join(WAIT)
    assert ended, "the driver does not return"
    assert "\n" not in str(ended[0])
    trace = str(ended[0].__cause__)
    assert "KeyError: 'root'" in trace
    assert "in dive" in trace
    assert len(trace) < 10_000  # of 900 frames
    assert progress(path).done == 0


@pytest.mark.filterwarnings("ignore")  # of Dask
def test_runs_that_raise_with_a_deep_traceback_fail(tmp_path, elsewhere):
    study = toy(kind=Deep, where="run")
    data = pl.run_study(study, prepare(tmp_path / "s", study, 10), executor=elsewhere)
    assert data.attrs["runs_failed"] == 40
    assert json.loads(data.attrs["failures"])[0]["error"] == "RuntimeError: deep\ntrouble"


def test_an_exception_whose_str_raises():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    assert running.work.error_message(Mute()) == "Mute: no message, its __str__ raised RuntimeError"
    assert len(running.work.error_message(ValueError("a" * 10_000))) == 500


def test_logs_of_a_connection_are_suppressed(caplog):
    """Logs of other modules are not suppressed."""
    handler = logging.getLogger("distributed").handlers or [caplog.handler]
    with executors._suppress_connection_logs():
        logging.getLogger("distributed.client").error("suppressed")
        logging.getLogger("mine").error("logged")
    assert all(not h.filters for h in handler)
    assert "logged" in caplog.text


def test_dask_worker_and_scheduler_are_killed(tmp_path, real, running_cluster):
    study, file, alone = real
    folder = prepare(tmp_path / "s", study, 8)
    cluster = running_cluster()
    driver = start(file, folder, "--scheduler", cluster.address, "--quiet")
    wait_until(lambda: len(workers(folder)) == 2 or driver.poll() is not None)
    time.sleep(random.uniform(0.0, 0.3))
    cluster.workers[0].kill()
    before = done_tasks(folder)
    wait_until(lambda: done_tasks(folder) > before + 5 or driver.poll() is not None)
    cluster.scheduler.kill()
    _, errors = driver.communicate(timeout=WAIT)
    assert driver.returncode == 2, errors
    found = r"pylyap: --scheduler (was lost|failed with).*; \d+ of 576 runs are complete"
    assert re.fullmatch(found + "; run the study again for the others\n", errors)  # one line
    assert before + 5 < done_tasks(folder) < 72
    pl.run_study(study, folder)
    assert_same_as_uninterrupted(folder, alone)
    assert len(workers(folder)) == 3  # two Dask workers and this process


def test_rows_of_a_stability_map_on_two_dask_workers(tmp_path, running_cluster):
    rates = np.geomspace(0.1, 100, 24)
    study = pl.Study(
        data={"name": "quadratic"},
        network={"hidden": 3},
        analysis={"name": "stability", "x": "lr_0", "x_values": rates, "n_steps": 2000},
        grid={"analysis.lr_1": rates},
        runs=1,
    )
    data = pl.run_study(study, tmp_path / "s", executor=running_cluster().address)
    assert len(workers(tmp_path / "s")) == 2
    w0 = study.weights((0,), 0, 1)[0]
    expected = pl.stability_map(
        study.system((0,)), ("lr_0", rates), ("lr_1", rates), n_steps=2000, w0=w0
    )
    for name in ("converged", "score", "steps_used"):
        np.testing.assert_array_equal(data[name].values[:, 0], getattr(expected, name))
    assert 0 < expected.converged.mean() < 1


def test_a_missing_scheduler_leaves_dask_unchanged():
    pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    for _ in range(2):
        with pytest.raises(ValueError, match="address of a Dask scheduler"), pool("none", None):
            pass
    assert dask.config.get("scheduler", None) is None


def workers(folder):
    """Workers of the recorded tasks."""
    return {record.worker for record in records.read(folder / "tasks.log")}


class Cluster:
    """A Dask scheduler and two workers of one thread."""

    def __init__(self, folder):
        self._folder, self._log = folder, (folder / "dask.log").open("w")
        self._environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}  # for `toys`
        file = folder / "scheduler.json"
        common = ["--scheduler-file", str(file), "--no-dashboard"]
        self.scheduler = self._start("scheduler", "--port", "0", "--host", "127.0.0.1", *common)
        self.workers = [
            self._start("worker", "--nthreads", "1", "--no-nanny", *common) for _ in range(2)
        ]
        wait_until(lambda: file.exists() and file.stat().st_size)
        self.address = json.loads(file.read_text())["address"]

    def _start(self, *what):
        command = [sys.executable, "-m", "dask", *what]
        options = {"cwd": self._folder, "env": self._environment}
        return subprocess.Popen(command, stdout=self._log, stderr=self._log, **options)

    @property
    def is_running(self):
        return all(process.poll() is None for process in (*self.workers, self.scheduler))

    def stop(self):
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()
        self._log.close()


def test_a_task_that_kills_its_workers_fails(tmp_path):
    class KilledWorker(Exception):
        """Like Dask's exception, which is recognised by its name."""

    class Failing(ThreadPoolExecutor):
        def submit(self, function, *args):
            if args[-3:] == ((0, 1), 4, 4):
                return super().submit(self.die)
            return super().submit(function, *args)

        def die(self):
            raise KilledWorker

    path = prepare(tmp_path / "s", toy(), 4)
    with Failing(1) as pool:
        data = pl.run_study(toy(), path, executor=pool)
    failed = np.zeros(data.status.shape, bool)
    failed[0, 1, 4:8] = True
    np.testing.assert_array_equal(data.status.values == 3, failed)
    assert "workers died during" in data.attrs["failures"]
    assert_whole(pl.run_study(toy(), path), toy())


# ------------------------------------------------------------------------------- interruptions


def test_resume_after_kills_at_random_moments(tmp_path, real):
    _, file, alone = real
    rng = np.random.default_rng()
    moments = rng.uniform(0.0, 0.5, 2).tolist()
    kill_again_and_again(file, tmp_path / "s", moments)
    assert_same_as_uninterrupted(tmp_path / "s", alone)


def test_only_tasks_in_flight_are_repeated_after_a_kill(tmp_path):
    log = tmp_path / "log"
    path = prepare(tmp_path / "s", toy(), 1)
    with start_toy(path, seconds=0.03, log=str(log)) as process:
        wait_until(lambda: done_tasks(path) > 5)
        process.kill()
        process.communicate()
    assert_whole(pl.run_study(toy(log=str(log)), path), toy())
    assert len(set(begun(log))) == 40
    assert len(begun(log)) <= 40 + 4  # two tasks per worker are in flight
    assert {record.tries for record in records.read(path / "tasks.log")} == {1}


@pytest.mark.parametrize("who", ["threads", "processes"])
def test_the_first_signal_completes_running_tasks(tmp_path, who):
    """SIGTERM to one process, or SIGINT, which its workers receive as well."""
    path = prepare(tmp_path / "s", toy(), 1)
    log = tmp_path / "log"
    with start_toy(path, who, seconds=0.3, log=str(log)) as process:
        wait_until(lambda: done_tasks(path))
        if who == "threads":
            process.terminate()
        else:
            os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT)
    assert re.search(
        r"study: finishing [1-4] running tasks; press Ctrl-C again to stop immediately", errors
    )
    assert re.search(r"KeyboardInterrupt: \d+ of 40 runs are complete; run the study again", errors)
    assert done_tasks(path) == len(begun(log)) < 12  # the running tasks


def test_the_second_signal_stops_the_command(tmp_path, real):
    study, file, alone = real
    path = prepare(tmp_path / "s", study, 96)
    with start(file, path) as process:
        wait_until(lambda: done_tasks(path))
        process.send_signal(signal.SIGINT)
        time.sleep(0.15)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT)
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("pylyap: stopped: ")
    assert 0 < done_tasks(path) < 6
    pl.run_study(study, path)
    assert_same_as_uninterrupted(path, alone)


def test_a_full_disk_is_one_line_and_code_3(small_disk, tmp_path, real):
    study, file, alone = real
    path = prepare(small_disk / "s", study, 16)
    (small_disk / "ballast").write_bytes(bytes(3_600_000))
    with start(file, path, "--quiet") as process:
        _, errors = process.communicate(timeout=WAIT)
    assert process.returncode == 3, errors
    assert re.fullmatch(
        r"pylyap: no space left for .*: free some space and run it again; .*\n", errors
    )
    with pytest.raises(OSError, match="No space left"):
        pl.run_study(study, path)
    assert (pl.open_study(path).status.values != -1).sum() == progress(path).done < 576
    (small_disk / "ballast").unlink()
    pl.run_study(study, path)
    assert_same_as_uninterrupted(path, alone)


def test_an_export_without_disk_space_is_one_line(small_disk, real, capsys):
    _, _, alone = real
    (small_disk / "ballast").write_bytes(bytes(3_000_000))
    assert run("export", alone, small_disk / "study.nc") == 3
    assert re.fullmatch(
        r"pylyap: cannot write .*study.nc: not enough disk space, up to .* are free\n",
        capsys.readouterr().err,
    )
    assert [file.name for file in small_disk.iterdir()] == ["ballast"]


def test_a_read_only_folder_is_an_error(small_disk):
    path = prepare(small_disk / "s", toy(), 10)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ValueError, match=r"path must be a writable folder.*read-only"):
        pl.run_study(toy(), path)
    assert pl.open_study(path).attrs["runs_done"] == 0


# --------------------------------------------------------------------------- from the command line


def run(*args):
    return cli.main([str(arg) for arg in args])


def test_run_status_and_export(tmp_path, real, capsys, monkeypatch):
    _, file, alone = real
    monkeypatch.chdir(tmp_path)
    assert run("status", alone) == 0
    printed = capsys.readouterr().out
    assert re.search(r"done +576 of 576 runs", printed)
    assert re.search(r"running +no", printed)
    assert run("export", alone, "study.nc") == 0
    assert Path("study.nc").stat().st_size > 50_000
    assert run("run", file, "--output", alone) == 0  # nothing remains to be computed
    assert re.search(r"diverged +\d+", capsys.readouterr().out)


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path, real, capsys, monkeypatch):
    _, file, _ = real
    monkeypatch.chdir(tmp_path)
    assert run("run", file, "--dry-run") == 0
    printed = capsys.readouterr().out
    for pattern in (
        "runs +576",
        r"tasks +\d+ of up to",
        "workers",
        r"time +\d\d:\d\d",
        "disk +.* available",
        r"memory +\d",
    ):
        assert re.search(pattern, printed), pattern
    assert not list(tmp_path.iterdir())


def test_status_of_a_running_study(tmp_path, capsys):
    path = prepare(tmp_path / "s", toy(), 1)
    with store.driver(path):
        opened = store.Store(path, toy())
        for task in list(opened.tasks())[:10]:
            opened.write(task, running.work.compute(toy(), *task, threads=1))
        assert run("status", path) == 0
        opened.close()
    printed = capsys.readouterr().out
    assert re.search(r"done +10 of 40 runs", printed)
    assert re.search(r"running +yes, .* runs/s, \d\d:\d\d left", printed)


def test_failures_are_listed_and_set_the_exit_code(tmp_path, capsys, monkeypatch, real):
    _, file, _ = real
    monkeypatch.setattr(pl.Study, "compute", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(running.plan, "measure", lambda _: running.plan.RunCost(1, 1, 1, 1, True))
    assert run("run", file, "--output", tmp_path / "s", "--quiet") == 1
    assert run("status", tmp_path / "s") == 0
    printed = capsys.readouterr().out
    assert re.search(r"failed +576", printed)
    assert "failed: activation" in printed
    assert "ZeroDivisionError: division by zero" in printed
    assert "more failures" in printed


def test_markup_in_a_failure_is_printed_literally(tmp_path, capsys):
    path = prepare(tmp_path / "s", toy(), 4)
    (tmp_path / "bad").touch()
    pl.run_study(toy(fail=str(tmp_path / "bad")), path)
    assert run("status", path) == 0
    assert "run 4: RuntimeError: [bold]no luck[/bold]" in capsys.readouterr().out


def test_control_characters_in_a_title_are_replaced(tmp_path, capsys):
    path = prepare(tmp_path / "s", toy(words="a"), 4)

    def change(content):
        about = content["attributes"]
        about["title"] = "\x1b[2J"
        about["settings"] = json.dumps(json.loads(about["settings"]) | {"title": "\x1b[2J"})

    edit_metadata(path, change)
    assert run("status", path) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\N{REPLACEMENT CHARACTER}[2J" in printed


def test_errors_are_one_line_with_exit_code_2(tmp_path, capsys, real):
    _, file, _ = real
    (tmp_path / "file").touch()
    for args, text in (
        (["run", file, "--output", tmp_path], "folder of a study or an empty one"),
        (["run", file, "--output", tmp_path / "s", "--scheduler", "nonsense"], "--scheduler must"),
        (["run", file, "--dry-run", "--scheduler", "nonsense"], "--scheduler must"),
        (["run", file, "--workers", "0"], "--workers"),
        (["run", tmp_path / "none.toml"], "does not exist"),
        (["status", tmp_path], "no results.zarr in it"),
        (["export", tmp_path, tmp_path / "a.nc"], "no results.zarr in it"),
        (["export", tmp_path, tmp_path / "a.csv"], "must end in one of .nc"),
    ):
        assert run(*args) == 2
        errors = capsys.readouterr().err
        assert text in errors
        assert errors.count("\n") == 1
    assert not (tmp_path / "a.nc").exists()


def test_errors_of_a_study_file_are_one_line_each(tmp_path, capsys, real):
    _, file, alone = real
    bad = tmp_path / "bad.toml"
    bad.write_text(file.read_text().replace("n_steps = 300", "n_steps = -1\nepochs = 3"))
    assert run("run", bad, "--output", tmp_path / "s") == 2
    heading, first, second = capsys.readouterr().err.splitlines()
    assert heading == f"pylyap: {bad} has 2 errors:"
    assert first.startswith("  line 8: analysis.epochs is unknown; allowed are n_steps, k, ")
    assert second == "  line 7: analysis.n_steps must be at least 1, got -1"
    assert not (tmp_path / "s").exists()
    bad.write_text(file.read_text().replace("300", "600"))
    assert run("run", bad, "--output", alone) == 2
    assert "which differs: analysis.n_steps 300 → 600" in capsys.readouterr().err


def test_progress_without_a_terminal(tmp_path, capsys, monkeypatch):
    path = prepare(tmp_path / "s", toy(), 1)
    monkeypatch.setattr(display, "_LINE_SECONDS", 0.0)
    pl.run_study(toy(seconds=0.01), path, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"study: \d+ of 40 runs, \d diverged, 0 failed, .* runs/s, \d\d:\d\d left", lines[-1]
    )
    pl.run_study(toy(), path)
    assert capsys.readouterr().err == ""


def test_progress_bar_on_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    pl.run_study(toy(seconds=0.05), prepare(tmp_path / "s", toy(), 4), progress=True)
    assert re.search(r"study: 100%.*40/40.*4 diverged, 0 failed", capsys.readouterr().err)
