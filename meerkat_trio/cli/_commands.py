"""The group of commands, and how bad input is answered: in one line, with exit status 2; an interruption: with 130."""

from __future__ import annotations

from typing import IO, Any

import click

from . import INTERRUPTED
from ._check import check
from ._demo import demo
from ._host import host
from ._journal import journal
from ._keygen import keygen
from ._machine import machine
from ._send import send
from ._trust import trust
from ._watch import watch

__all__ = ["commands"]


class _BadInput(click.ClickException):
    exit_code = 2


class _Interrupted(click.ClickException):
    exit_code = INTERRUPTED

    def show(self, file: IO[str] | None = None) -> None:
        click.echo(self.message, file=file, err=True)


class _OneLineGroup(click.Group):
    """A group that leaves the four lines out with which click surrounds what is wrong with the input."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise _BadInput(" ".join(error.format_message().split())) from None
        except KeyboardInterrupt:
            raise _Interrupted("interrupted") from None
        except BaseExceptionGroup as group:
            # An interruption of a Trio run may come with what its tasks made of it.
            if group.subgroup(KeyboardInterrupt) is None:
                raise
            raise _Interrupted("interrupted") from None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _BadInput(error.format_message()) from None


@click.group(cls=_OneLineGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="meerkat-trio")
def commands() -> None:
    """Many long-lived agent sessions in one Trio process."""


commands.add_command(machine)
commands.add_command(demo)
commands.add_command(check)
commands.add_command(keygen)
commands.add_command(trust)
commands.add_command(host)
commands.add_command(send)
commands.add_command(watch)
commands.add_command(journal)
