"""What a terminal shows: numbers with uncertainties, tables that fit, completion, progress."""

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.shell_completion import get_completion_class

pytest.importorskip("pylyap.cli")
from pylyap import cli
from pylyap.cli.tables import Column, print_rows, uncertain

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "spectrum": "--hidden 3 --runs 3 --steps 40 --lr 0.1,1",
    "clv": "--hidden 3 --runs 2 -k 3 --steps 40 --tail 20 --transient 20 --delay 10",
    "ensemble": "--hidden 3 --runs 2 --steps 60 --lr 1",
    "scan": "--hidden 3 --runs 2 --lr 0.1,1 --steps 60 --late 20",
    "train": "--hidden 3 --runs 2 --epochs 3 --lr 0.1 --test 30",
    "deviation": "--hidden 3,3 --runs 2 --epochs 3",
    "predict": "--runs 30 --steps 80 --until 40 --window 20 -k 3 --angles 0 --activation tanh",
}


def run(*args):
    return cli.main([str(a) for a in args])


# ----------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.0824, 0.0203, "0.082(20)"),
        (-0.0824, 0.0203, "-0.082(20)"),
        (1234, 56, "1234(56)"),
        (12346, 678, "12350(680)"),
        (0, 0.001, "0.0000(10)"),
        (-1e-9, 0.001, "0.0000(10)"),  # no minus before zero
        (12.34, 1.23, "12.3(1.2)"),
        (99.96, 0.0995, "99.96(10)"),  # 0.0995 rounds to 0.10, not to 0.100
        (0.1, 9.96, "0(10)"),
        (1.58e-5, 1e-4, "0.00002(10)"),
        (1.58e-9, 2.3e-10, "1.58(23)e-09"),
        (7.06e165, 3e165, "7.1(3.0)e+165"),
        (1.0, 2e-12, "1.0000000000000(20)"),
        (0.0824, math.nan, "0.0824"),
        (0.08241, 0.0, "0.0824(0)"),
        (math.nan, 0.1, "–"),
        (math.inf, 0.1, "inf"),
        (-math.inf, math.nan, "-inf"),
        (0.5, math.inf, "0.5"),
    ],
)
def test_an_uncertainty_has_two_digits(value, error, text):
    assert uncertain(value, error) == text


def test_what_is_printed_is_the_number():
    # Parsed again, value and error agree to half a unit of the last digit shown.
    draw = np.random.default_rng(0)
    for _ in range(2000):
        value = draw.normal() * 10.0 ** draw.integers(-12, 12)
        error = abs(value) * 10.0 ** draw.uniform(-8, 3)
        head, spread, power = re.fullmatch(
            r"(-?[\d.]+)\(([\d.]+)\)(?:e([+-]\d+))?", uncertain(value, error)
        ).groups()
        unit = 10.0 ** int(power or 0)
        places = len(head.partition(".")[2])
        scale = 1.0 if "." in spread else 10.0**-places
        shown_error = float(spread) * scale * unit
        assert abs(shown_error - error) <= 0.051 * error
        # At most half of the last digit of the error, of which there are two.
        assert abs(float(head) * unit - value) <= 0.051 * error + 1e-9 * abs(value)
        assert len(spread.replace(".", "").rstrip("0") or "0") <= 2


# ------------------------------------------------------------------------------------------ tables


@pytest.mark.parametrize("command", COMMANDS)
def test_tables_fit_80_columns_without_wrapped_cells(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(command, *COMMANDS[command].split()) == 0
    narrow = capsys.readouterr().out
    monkeypatch.delenv("COLUMNS")
    assert run(command, *COMMANDS[command].split()) == 0
    wide = capsys.readouterr().out
    assert max(map(len, narrow.splitlines())) <= 80
    assert "…" not in narrow + wide
    assert not any(line.endswith(" ") for line in (narrow + wide).splitlines())

    def table(text):
        lines = text.splitlines()
        rule = next(i for i, line in enumerate(lines) if "──" in line)
        return lines[rule - 1], lines[rule + 1 : lines.index("", rule)]

    (head, rows), (all_heads, all_rows) = table(narrow), table(wide)
    assert len(rows) == len(all_rows)  # no cell takes two lines
    if command == "spectrum":
        assert len(rows) == 2
    missing = re.search(r"Not shown in 80 columns: (.*)\.", " ".join(narrow.split()))
    left_out = missing[1].split(", ") if missing else []
    names = re.split(r"\s{2,}", all_heads.strip())
    assert re.split(r"\s{2,}", head.strip()) == [n for n in names if n not in left_out]
    assert "Not shown" not in wide


def test_least_important_columns_go_first(capsys, monkeypatch):
    columns = ["a", Column("bbbbbbbb", 1, "the b"), Column("cccccccc", 2, "the c"), Column("d", 3)]
    rows = [["1", "2", "3", "–"], ["[1]", "[red]2[/]", "3", ""]]

    def shown(width):
        monkeypatch.setenv("COLUMNS", str(width))
        print_rows("title", columns, rows, "Note.", ["More."])
        return capsys.readouterr().out.splitlines()

    assert shown(40) == [
        " title", "", " a    bbbbbbbb  cccccccc", " ───────────────────────",
        " 1    2         3", " [1]  2         3", "",
        " Note. bbbbbbbb: the b; cccccccc: the", " c.", " More.",
    ]  # fmt: skip
    assert shown(22)[2].split() == ["a", "bbbbbbbb"]
    assert "cccccccc." in shown(22)[-1]
    assert not any("the c" in line for line in shown(22))
    columns[1] = "b" * 30  # does not fit, but must be there
    assert shown(25)[2].split() == ["a", "b" * 30]


def test_long_lists_of_the_last_column_are_cut(capsys, monkeypatch):
    rows = [["1", "5 convergent, 3 periodic (2, 3), 2 chaotic"], ["2", "10 convergent"]]

    def cells(width):
        monkeypatch.setenv("COLUMNS", str(width))
        print_rows("title", ["lr", "regime"], rows)
        lines = capsys.readouterr().out.splitlines()
        return [line[5:] for line in lines[4:6]], max(map(len, lines))

    assert cells(60)[0] == [rows[0][1], "10 convergent"]
    assert cells(40) == (["5 convergent, 3 periodic (2, 3), …", "10 convergent"], 39)
    assert cells(36)[0] == ["5 convergent, …", "10 convergent"]
    assert cells(30)[0] == ["5 convergent, …", "10 convergent"]
    rows[0][1] = "[green]marginal[/] 5/8, [red]chaotic[/] 3/8, [red]collapsed[/] 1/8"
    assert cells(36)[0][0] == "marginal 5/8, chaotic 3/8, …"


def test_the_scan_fits_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    many = "--runs 12 --lr 1,2.8,4.7 --steps 300 --late 60 --perturbations 0 --quiet"
    assert run("scan", *many.split()) == 0
    captured = capsys.readouterr().out
    assert ", …\n" in captured
    assert max(map(len, captured.splitlines())) <= 80


def test_colours_on_a_terminal_only(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    print_rows("t", ["a"], [["[red]x[/]"]])
    assert "\x1b[" in capsys.readouterr().out
    monkeypatch.delenv("FORCE_COLOR")
    print_rows("t", ["a"], [["[red]x[/]"]])
    assert "\x1b[" not in capsys.readouterr().out


def test_exponents_say_how_they_are_ordered(capsys):
    assert run("spectrum", *COMMANDS["spectrum"].split()) == 0
    text = capsys.readouterr().out
    assert "λ in nats per step: mean over runs (spread over runs, or the error of one run" in text
    assert "ordered as the frame is, not by size." in text
    assert run("spectrum", "--runs", 1, *COMMANDS["spectrum"].replace("--runs 3", "").split()) == 0
    assert "average over the steps (standard error)" in capsys.readouterr().out


# --------------------------------------------------------------------------------- status, the tour


@pytest.fixture
def changing(monkeypatch):
    """Progress of a study that runs for three looks and then ends."""
    from pylyap.studies import results

    study = pytest.importorskip("pylyap.studies").Study(
        data={"name": "quadratic", "n": 5},
        network={"hidden": 1},
        analysis={"name": "spectrum", "n_steps": 2, "k": 1},
        runs=4,
    )

    def prepare(folder):
        pytest.importorskip("zarr")
        from pylyap.studies import run_study

        run_study(study, folder)
        now = results.progress(folder)
        looks = []

        def progress(path):
            looks.append(path)
            n = min(len(looks), 3)
            statuses = now.statuses.copy()
            statuses[n:] = -1
            return replace(now, statuses=statuses, running=len(looks) < 4)

        monkeypatch.setattr(results, "progress", progress)
        return looks

    return prepare


def test_watch_prints_a_line_per_change_into_a_pipe(tmp_path, capsys, changing):
    looks = changing(tmp_path / "s")
    assert run("status", tmp_path / "s", "--watch", "--every", "0.1") == 0
    text = capsys.readouterr().out
    assert text.splitlines()[:3] == [f"{n} of 4 runs, 0 diverged" for n in (1, 2, 3)]
    assert "running     no" in text
    assert len(looks) == 4
    assert "\x1b" not in text  # no clearing of the screen


def test_watch_replaces_the_text_on_a_terminal(tmp_path, capsys, changing, monkeypatch):
    changing(tmp_path / "s")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    cleared = []
    monkeypatch.setattr("click.clear", lambda: cleared.append(1))
    assert run("status", tmp_path / "s", "--watch", "--every", "0.1") == 0
    assert len(cleared) == 4
    assert capsys.readouterr().out.count("done ") == 4


def test_watch_ends_with_ctrl_c(tmp_path, capsys, changing, monkeypatch):
    changing(tmp_path / "s")

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    assert run("status", tmp_path / "s", "--watch") == 0
    captured = capsys.readouterr()
    assert captured.out == "1 of 4 runs, 0 diverged\n"
    assert captured.err == ""


def test_completion():
    script = Path(sys.executable).with_name("pylyap")
    if not script.exists() or not shutil.which("bash"):
        pytest.skip("the command or bash is not installed")
    environment = os.environ | {"_PYLYAP_COMPLETE": "bash_source"}
    done = subprocess.run([script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "_PYLYAP_COMPLETE=bash_complete" in done.stdout
    tour = (ROOT / "docs/start/tour.md").read_text("utf-8")
    for shell in ("bash", "zsh", "fish"):
        assert f"{shell}_source" in tour
        assert get_completion_class(shell) is not None


def test_completion_offers_data_sets_and_files():
    script = Path(sys.executable).with_name("pylyap")
    if not script.exists():
        pytest.skip("the command is not installed")
    environment = os.environ | {
        "_PYLYAP_COMPLETE": "bash_complete", "COMP_WORDS": "pylyap spectrum --data i",
        "COMP_CWORD": "3",
    }  # fmt: skip
    done = subprocess.run([script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["plain,iris", "file,i"]


def tour_commands():
    text = (ROOT / "docs/start/tour.md").read_text("utf-8").partition("## From the shell")[2]
    block = text.partition("```sh\n")[2].partition("```")[0]
    lines = [line.partition("#")[0] for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("pylyap")]


def test_commands_of_the_tour_are_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "wine.csv").touch()
    commands = tour_commands()
    assert len(commands) >= 12
    for name, *arguments in commands:
        command = cli.commands.commands[name]
        command.make_context(name, list(arguments))  # raises for options and files that are wrong


@pytest.mark.slow
def test_commands_of_the_tour_run(tmp_path, monkeypatch):
    from sklearn.datasets import load_wine

    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    wine = load_wine(as_frame=True).frame.rename(columns={"target": "class"})
    wine.to_csv("wine.csv", index=False)
    for arguments in tour_commands():
        assert run(*arguments) == 0, arguments
