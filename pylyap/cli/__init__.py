"""The command line, one module per command.

Tables go to standard output, progress and errors to standard error. Anything wrong is one line
and exit code 2. What a command needs is imported when it runs, so that `--help` is quick.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any

import click

from pylyap.cli.covariant import clv
from pylyap.cli.deviation import deviation
from pylyap.cli.ensemble import ensemble
from pylyap.cli.export import export
from pylyap.cli.info import info
from pylyap.cli.plot import plot
from pylyap.cli.predict import predict
from pylyap.cli.report import report
from pylyap.cli.run import run_command
from pylyap.cli.scan import scan
from pylyap.cli.spectrum import spectrum
from pylyap.cli.status import status
from pylyap.cli.train import train

__all__ = ["Interruptible", "main", "run"]


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for any error, 130 if interrupted."""
    return run(commands, args, "pylyap")


def run(command: click.Command, args: Sequence[str] | None, name: str) -> int:
    """Run a command under this name and return its exit code, as `main` does."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Greek letters is no error
    try:
        code = command.main(args, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except click.Abort:
        return _complain("interrupted", 130)
    except click.ClickException as error:
        return _complain(error.format_message())
    except BrokenPipeError:  # whoever read our output has gone, as in `pylyap info | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError as error:
        return _complain(f"out of memory {error}")
    except (ValueError, TypeError) as error:
        return _complain(_in_options(str(error)))
    except (ImportError, OSError) as error:
        return _complain(_in_options(str(error)))
    except Exception as error:
        return _complain(f"internal error, please report it: {type(error).__name__}: {error}")
    return code if isinstance(code, int) else 0


# Arguments of the library and the options that stand for them.
_OPTIONS = {
    "n_steps": "--steps",
    "n_transient": "--transient",
    "n_tail": "--tail",
    "record_every": "--record-every",
    "qr_every": "--qr-every",
    "batch_size": "--batch-size",
    "weight_decay": "--weight-decay",
    "memory_limit": "--memory",
    "final_loss": "the final loss",
    "n_perturbations": "--perturbations",
    "n_late": "--late",
    "checkpoint_every": "--checkpoint-every",
}
_FIRST = {
    "k": "--vectors",
    "layers": "--hidden",
    "lr": "--lr",
    "lrs": "--lr",
    "loss": "--loss",
    "executor": "--scheduler",
} | {
    name: f"--{name}"
    for name in (
        "activation",
        "momentum",
        "scale",
        "delay",
        "every",
        "threads",
        "eps",
        "start",
        "observe",
        "epochs",
        "checkpoint",
        "snapshots",
        "folder",
        "bins",
        "workers",
        "mixed",
        "widths",
    )
}


def _in_options(message: str) -> str:
    """A message of the library in the words of the command line."""
    arguments = re.compile(rf"(?<![.\w])({'|'.join(_OPTIONS)})\b")  # and no keys of a study
    named = arguments.sub(lambda m: _OPTIONS[m[1]], message)
    first, space, rest = named.partition(" ")
    return _FIRST.get(first, first) + space + rest


def _complain(message: str, code: int = 2) -> int:
    print("pylyap:", " ".join(message.split()), file=sys.stderr)
    return code


class Interruptible(click.Command):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # further out click would print an empty line before our own
            raise click.Abort from None


class _Group(Interruptible, click.Group):
    pass


@click.group(
    cls=_Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="pylyap", message="%(prog)s %(version)s")
@click.pass_context
def commands(ctx: click.Context) -> None:
    """The training of a neural network, seen as a dynamical system.

    \b
    Example:
      pylyap spectrum --plot spectrum.png
      pylyap clv --help
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


_ANALYSES = (spectrum, clv, predict, ensemble, scan, train, deviation)
for command in (*_ANALYSES, run_command, status, plot, report, export, info):
    commands.add_command(command)
