"""``pyglyn certs``: a CA and certificates for a first try of TLS, and for tests. Layer: cli."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from pyglyn import certificates
from pyglyn.errors import LocalProtocolError


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
@click.option(
    "--days", type=click.IntRange(min=1), default=365, show_default=True, help="How long they are valid."
)
def certs(folder: Path, nodes: tuple[str, ...], days: int) -> None:
    """Make a CA in DIR, and a certificate for each NODE (NAME@HOST) with an option file for both worlds.

    The CA is made once: called again it adds nodes. Needs the extra `pyglyn[tls]`.

    A Python node takes the option file by `--ssl-dist-optfile DIR/NAME@HOST.conf`, a BEAM node by
    `-proto_dist inet_tls -ssl_dist_optfile DIR/NAME@HOST.conf`.
    """
    for node in nodes:
        if "@" not in node:
            raise click.UsageError(f"{node!r} is no node name: write name@host")
    try:
        authority = certificates.authority(folder, days=days)
        for node in nodes:
            click.echo(certificates.for_node(authority, node, days=days))
    except ImportError as error:
        raise LocalProtocolError("this needs the package cryptography: pip install 'pyglyn[tls]'") from error
    except OSError as error:
        raise LocalProtocolError(f"cannot write to {folder}: {error.strerror}") from error
