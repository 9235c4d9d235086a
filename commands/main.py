"""The group of commands, and what becomes of errors."""

from __future__ import annotations

import errno
import os
import platform
import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NoReturn

import click

from embconform import __version__
from embconform.backends.backend import TargetError
from embconform.commands.accuracy import accuracy
from embconform.commands.backends import backends
from embconform.commands.bench import bench
from embconform.commands.clauses import clauses
from embconform.commands.gate import gate
from embconform.commands.matrix import matrix
from embconform.commands.merge import merge
from embconform.commands.selftest import selftest
from embconform.commands.validate import validate
from embconform.conformance.collector import look_less_often

_SCARCE: Final = frozenset(
    {
        errno.EAGAIN, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
        errno.ENOSPC, errno.EROFS,
    }
)  # fmt: skip
_ROOM: Final = "make room or raise the limit (see: ulimit -a, df)"
OK, NONCONFORMANT, UNUSABLE, FAULT, INTERRUPTED, NO_READER = 0, 1, 2, 3, 130, 141


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="embconform")
@click.pass_context
def embconform(context: click.Context) -> None:
    """Find out whether an embedding does what it must."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _command in (
    validate, merge, matrix, accuracy, bench, gate, clauses, backends, selftest,
):  # fmt: skip
    embconform.add_command(_command)


def run(arguments: Sequence[str]) -> int:
    """Run a command line.

    Parameters
    ----------
    arguments : sequence of str
        What stands after ``embconform``.

    Returns
    -------
    int
        The exit code: 0 conformant, 1 not, 2 the call or the target can't be used (one line on
        stderr), 3 embconform itself failed, 130 interrupted.
    """
    try:
        _check_folder()
        code = embconform.main(list(arguments), prog_name="embconform", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted; nothing was written")
        return INTERRUPTED
    except click.UsageError as error:
        _say(_with_help(error))
        return UNUSABLE
    except click.ClickException as error:
        _say(error.format_message())
        return UNUSABLE
    except TargetError as error:
        _say(str(error))
        return UNUSABLE
    except SystemExit:  # click's way of leaving when the reader of --help has gone
        return NO_READER
    except (OSError, MemoryError) as error:
        if not _is_refused(error):
            _report_fault(error, arguments)
            return FAULT
        _say(f"this machine gives no more: {getattr(error, 'strerror', 'out of memory')}; {_ROOM}")
        return UNUSABLE
    except Exception as error:
        _report_fault(error, arguments)
        return FAULT
    return code if isinstance(code, int) else OK


def entry_point() -> NoReturn:
    """Run the process's command line and exit."""
    _plug()
    look_less_often()
    sys.exit(run(sys.argv[1:]))


def _plug() -> None:
    """Let no file of ours take the number of a standard stream that is closed."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            plug = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            os.set_inheritable(plug, True)


def _check_folder() -> None:
    """Refuse to work in a folder that has been deleted."""
    try:
        Path.cwd()
    except OSError as error:
        raise click.ClickException(
            f"can't work in the current folder: {error.strerror}; change to one that exists"
        ) from error


def _is_refused(error: OSError | MemoryError) -> bool:
    """Tell whether the system has run out of something; all else is a fault of ours."""
    return isinstance(error, MemoryError) or error.errno in _SCARCE


def _with_help(error: click.UsageError) -> str:
    """Add where help is."""
    message = error.format_message()
    if error.ctx is None:
        return message
    return f"{message} (see: {error.ctx.command_path} --help)"


def _say(message: str) -> None:
    """Write one line to stderr."""
    line = "".join(char if char.isprintable() else " " for char in message)
    with suppress(OSError):  # nobody can be told then, and the exit code remains
        click.echo(f"embconform: {' '.join(line.split())}", err=True)


def _report_fault(error: Exception, arguments: Sequence[str]) -> None:
    """Write the traceback and what to report."""
    with suppress(OSError):
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "missing"
    _say(
        f"this is a fault in embconform {__version__}, not in your embedding; please report the "
        f"traceback with: Python {platform.python_version()}, torch {torch}, "
        f"{platform.platform()}, command: {shlex.join(['embconform', *arguments])}"
    )
