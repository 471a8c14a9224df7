"""What all commands share: errors in one line, the nearest name, and modules that are imported when they are called."""

from __future__ import annotations

import difflib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from fewrec.errors import FewrecError, nearest
from fewrec.terminal import echo, plain, rich_console

if TYPE_CHECKING:
    from rich.console import Console


# A command without arguments prints its help; click raises that since 8.2.
_HELP: tuple[type[Exception], ...] = tuple(filter(None, [getattr(click.exceptions, "NoArgsIsHelpError", None)]))


class Refused(click.ClickException):
    """What can't be done, said in one line."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        echo(f"error: {self.message}", err=True)


def refusal(error: click.UsageError, command: click.Command) -> Refused:
    """Return click's error on a command's arguments in one line, without its lines on usage.

    ``command`` is the one that was called, for errors that don't say.
    """
    ctx = error.ctx
    command = ctx.command if ctx is not None else command
    path = " ".join(["fewrec", *(ctx.command_path.split()[1:] if ctx is not None else [])])
    hint = f"; see {path} --help"
    if isinstance(error, click.NoSuchOption):
        known = [option for parameter in command.params for option in parameter.opts if option.startswith("-")]
        close = difflib.get_close_matches(error.option_name, known, n=1, cutoff=0.75)
        meant = f"; did you mean {close[0]}?" if close else ""
        return Refused(f"no such option {error.option_name}{meant or hint}")
    if isinstance(error, click.BadOptionUsage):
        several = re.search(r"requires (\d+) arguments", error.message)
        return Refused(f"{error.option_name} needs {f'{several[1]} values' if several else 'a value'} behind it")
    if isinstance(error, click.BadParameter) and error.param is not None:
        name = error.param.opts[0] if isinstance(error.param, click.Option) else _name(error.param)
        if isinstance(error, click.MissingParameter):
            return Refused(f"{name} is missing{hint}")
        return Refused(f"{name}: {error.message.rstrip('.')}")
    extra = re.fullmatch(r"Got unexpected extra arguments? \((.*)\)", error.message)
    if extra:
        return Refused(f"'{extra[1]}' is one argument too many{hint}")
    return Refused(error.message)


def _name(argument: click.Parameter) -> str:
    return argument.metavar or (argument.name or "").upper()


INTERRUPTED, TERMINATED = 130, 143  # 128 + the signal's number, as shells count


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does: what is complete stays."""


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Raise ``Terminated`` in the block on SIGTERM; Python would end without a word and without clearing up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(signum: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_interrupted(stop: KeyboardInterrupt, text: str) -> None:
    """Say in one line that a signal has ended the command, and exit with its code."""
    terminated = isinstance(stop, Terminated)
    echo(f"{'terminated' if terminated else 'interrupted'}; {text}", err=True)
    sys.exit(TERMINATED if terminated else INTERRUPTED)


class Commands(click.Group):
    """A group that turns what the user can mend into one line and exit code 2, and names the nearest command.

    Ctrl-C is one line and exit code 130.

    ``lazy`` maps a command's name to (``module:object``, its one line of help), so that listing commands, and running
    one of them, imports none of the others.
    """

    def __init__(self, *args: Any, lazy: dict[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.lazy:
            module, _, name = self.lazy[cmd_name][0].partition(":")
            return getattr(import_module(module), name)
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if not self.lazy:
            return super().format_commands(ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self.lazy.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            raise click.UsageError(f"no such command '{args[0]}'{nearest(args[0], known)}", ctx)
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except _HELP:
            raise
        except click.UsageError as error:
            raise refusal(error, self) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except _HELP:
            raise
        except click.UsageError as error:
            raise refusal(error, self) from None
        except click.ClickException as error:
            error.message = plain(error.message)  # type: ignore[misc]  # click prints it
            raise
        except FewrecError as error:
            echo(f"error: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt as stop:
            end_interrupted(stop, "run the same command again")


def console() -> Console:
    """Return a console on standard output: as wide as the terminal, elsewhere as COLUMNS says, or 200 columns."""
    width = os.environ.get("COLUMNS", "")
    return rich_console() if sys.stdout.isatty() else rich_console(width=int(width) if width.isdigit() else 200)
