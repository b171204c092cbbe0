"""`meerkat-trio trust`: who is trusted by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

from ..authority import PeerEndpoint, PeerId
from ..comms import KeyFileRefused, TrustFile, TrustFileRefused
from ..comms._identity import load_public_key, parse_public_key
from ..testing._lanes import shown

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["trust", "trusted_by"]

_TRUST_FILE: Final = "trust.jsonl"

_directory: Final[Callable[..., Callable[..., None]]] = click.argument(
    "directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)


@click.group(no_args_is_help=False)
def trust() -> None:
    """Say whom the peer of a directory trusts by hand."""


@trust.command()
@_directory
@click.argument("name")
@click.argument("address")
@click.argument("key")
def add(directory: Path, name: str, address: str, key: str) -> None:
    """Trust the peer of KEY, or replace what is said of it.

    NAME is for display. ADDRESS is tcp://host:port or uds:///path. KEY is 64 hexadecimal digits, or a file with them.
    """
    try:
        signing_key = _key(key)
        endpoint = PeerEndpoint(name=name, peer_id=PeerId.of_key(signing_key), address=address, signing_key=signing_key)
        changed = _file(directory).add(endpoint)
    except (ValueError, KeyFileRefused, TrustFileRefused) as error:
        _refuse(error)
    click.echo(f"{'trusted' if changed else 'trusted already'}  {endpoint.peer_id}")


@trust.command()
@_directory
@click.argument("peer_id")
def remove(directory: Path, peer_id: str) -> None:
    """Trust a peer no more, whatever it is called and wherever it is."""
    file = _file(directory)
    try:
        parsed = PeerId(peer_id)
        removed = file.path.exists() and file.remove(parsed)
    except (ValueError, TrustFileRefused) as error:
        _refuse(error)
    if not removed:
        raise click.UsageError(f"{parsed} is not trusted in {file.path}")
    click.echo(f"removed  {parsed}")


@trust.command("list")
@_directory
@click.option("--json", "json_", is_flag=True, help="Print a JSON object for each peer.")
def list_(directory: Path, *, json_: bool) -> None:
    """Print who is trusted: peer id, address, name."""
    try:
        endpoints = trusted_by(directory)
    except TrustFileRefused as refused:
        _refuse(refused)
    for endpoint in endpoints:
        if json_:
            click.echo(json.dumps(_as_dict(endpoint)))
        else:
            click.echo(f"{endpoint.peer_id}  {endpoint.address}  {shown(endpoint.name)}")
    if not endpoints:
        click.echo("nobody is trusted", err=True)


def trusted_by(directory: Path) -> tuple[PeerEndpoint, ...]:
    """Return whom the peer of a directory trusts by hand; nobody, if it has no trust file.

    Raises:
        TrustFileRefused: the file is of no use.
    """
    file = _file(directory)
    return tuple(file.endpoints()) if file.path.exists() else ()


def _file(directory: Path) -> TrustFile:
    return TrustFile(directory / _TRUST_FILE)


def _key(text: str) -> bytes:
    try:
        return parse_public_key(text)
    except ValueError as error:
        if not Path(text).exists():
            raise ValueError(f"KEY: {error}, or a file with them") from None
    return load_public_key(Path(text))


def _as_dict(endpoint: PeerEndpoint) -> dict[str, str]:
    return {
        "peer_id": endpoint.peer_id,
        "name": endpoint.name,
        "address": endpoint.address,
        "signing_key": endpoint.signing_key.hex(),
    }


def _refuse(error: Exception) -> NoReturn:
    raise click.UsageError(shown(str(error))) from None
