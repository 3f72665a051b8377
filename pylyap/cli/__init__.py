"""The command line, one module per command.

Tables go to standard output, progress and errors to standard error. An error is one line and exit
code 2, a full disk one line and exit code 3. A command imports what it needs when it runs, so that
`--help` is fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from pylyap._errors import ArgumentError
from pylyap._files import is_full, reason
from pylyap.cli.covariant import clv
from pylyap.cli.deviation import deviation
from pylyap.cli.ensemble import ensemble
from pylyap.cli.export import export
from pylyap.cli.info import info
from pylyap.cli.jacobian import jacobian
from pylyap.cli.map import map_command
from pylyap.cli.options import ERROR, FULL, INTERRUPTED, DiskFullError, printable
from pylyap.cli.plot import plot
from pylyap.cli.predict import predict
from pylyap.cli.report import report
from pylyap.cli.run import run_command
from pylyap.cli.scan import scan
from pylyap.cli.sharpness import sharpness
from pylyap.cli.spectrum import spectrum
from pylyap.cli.status import status
from pylyap.cli.streams import safe_streams
from pylyap.cli.train import train

__all__ = ["Interruptible", "main", "run"]


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 success; 1 success, but runs of a study failed; 2 error; 3 disk full, for a file or for
    standard output; 130 interrupted. If the reader of standard output closes the pipe, the rest of
    the output is discarded, all files are written, and the code is not affected.
    """
    return run(commands, args, "pylyap")


def run(command: click.Command, args: Sequence[str] | None, name: str) -> int:
    """Run a command under this name and return its exit code, as `main` does."""
    with safe_streams() as failures:
        code = _execute(command, args, name)
        sys.stdout.flush()
        if failures and code == 0:
            error = failures[0]
            code = _report(f"cannot write standard output: {reason(error)}", _code(error))
        return code


def _execute(command: click.Command, args: Sequence[str] | None, name: str) -> int:
    try:
        code = command.main(args, prog_name=name, standalone_mode=False)
    except click.Abort:
        return _report("interrupted", INTERRUPTED)
    except DiskFullError as error:
        return _report(error.format_message(), FULL)
    except click.ClickException as error:
        return _report(error.format_message())
    except MemoryError as error:
        return _report(f"out of memory {error}")
    except (ValueError, TypeError, ImportError, OSError) as error:
        return _report(str(error), _code(error))
    except Exception as error:
        return _report(f"internal error, please report it: {type(error).__name__}: {error}")
    return code if isinstance(code, int) else 0


def _code(error: Exception) -> int:
    return FULL if is_full(error) else ERROR


# Options whose argument in the library has another name.
_OPTIONS = {
    "n_steps": "--steps",
    "n_transient": "--transient",
    "n_tail": "--tail",
    "n_perturbations": "--perturbations",
    "n_late": "--late",
    "n_batches": "--batches",
    "memory_limit": "--memory",
    "k": "--vectors",
    "layers": "--hidden",
    "lrs": "--lr",
    "executor": "--scheduler",
    "source": "--data",
}


def _in_options(error: ArgumentError, command: click.Command) -> str:
    """The message of an error, with the name of the option instead of the argument's."""
    option = _OPTIONS.get(error.argument, "--" + error.argument.replace("_", "-"))
    known = {name for parameter in command.params for name in parameter.opts}
    return f"{option} {error.text}" if option in known else str(error)


def _report(message: str, code: int = ERROR) -> int:
    print("pylyap:", printable(" ".join(message.split())), file=sys.stderr)
    return code


class Interruptible(click.Command):
    """A command that reports Ctrl-C and wrong arguments in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click itself would print an empty line first
            raise click.Abort from None
        except ArgumentError as error:
            raise click.ClickException(_in_options(error, self._invoked(ctx))) from error

    def _invoked(self, ctx: click.Context) -> click.Command:
        return self


class _Group(Interruptible, click.Group):
    def _invoked(self, ctx: click.Context) -> click.Command:
        return self.commands.get(ctx.invoked_subcommand or "", self)


@click.group(
    cls=_Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="pylyap", message="%(prog)s %(version)s")
@click.pass_context
def commands(ctx: click.Context) -> None:
    """Training of neural networks as a dynamical system.

    \b
    Example:
      pylyap spectrum --plot spectrum.png
      pylyap clv --help
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


_ANALYSES = (
    spectrum, clv, jacobian, sharpness, predict, ensemble, scan, map_command, train, deviation
)  # fmt: skip
for command in (*_ANALYSES, run_command, status, plot, report, export, info):
    commands.add_command(command)
