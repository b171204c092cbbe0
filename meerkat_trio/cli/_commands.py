"""The group of commands."""

from __future__ import annotations

import click

from ._demo import demo
from ._machine import machine

__all__ = ["commands"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="meerkat-trio")
def commands() -> None:
    """Many long-lived agent sessions in one Trio process."""


commands.add_command(machine)
commands.add_command(demo)
