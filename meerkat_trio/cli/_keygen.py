"""`meerkat-trio keygen`: makes the key of a new peer."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from ..comms import KeyFileRefused
from ..comms._identity import Identity

__all__ = ["PUBLIC_KEY", "SECRET_KEY", "keygen"]

SECRET_KEY: Final = "secret.key"  # noqa: S105 - where it is
PUBLIC_KEY: Final = "public.key"


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
def keygen(directory: Path) -> None:
    """Make a key pair in DIR, which is made if it is not there.

    secret.key is for this peer alone; public.key is for those who shall trust it. A key is never overwritten.
    """
    identity = Identity.generate()
    secret = directory / SECRET_KEY
    public = directory / PUBLIC_KEY
    made = False
    try:
        _require_free(secret)
        _require_free(public)
        made = not directory.exists()
        directory.mkdir(mode=0o700, exist_ok=True)
        _save(identity, secret, public)
    except OSError as error:
        raise click.UsageError(f"{directory}: {error.strerror}") from None
    except KeyFileRefused as refused:
        if made:
            directory.rmdir()
        raise click.UsageError(str(refused)) from None
    click.echo(f"peer id     {identity.peer_id}")
    click.echo(f"public key  {identity.public_key.hex()}")
    click.echo(f"secret key  in {secret}, which nobody else may read")


def _require_free(path: Path) -> None:
    if path.is_symlink() or path.exists():
        raise KeyFileRefused(path, "it exists already, and a key is never overwritten")


def _save(identity: Identity, secret: Path, public: Path) -> None:
    identity.save(secret)
    try:
        identity.save_public_key(public)
    except BaseException:
        # Half a pair is no key pair, and nobody has used it yet.
        secret.unlink()
        raise
