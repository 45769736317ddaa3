"""``pyglyn interop``: what goes to the other side of the cluster, written to a folder. Layer: cli."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import rich_click as click

from pyglyn.errors import LocalProtocolError

KINDS = (".erl", ".gleam", ".toml")


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
def interop(folder: Path) -> None:
    """Write the Erlang and Gleam files that the documentation speaks of into DIR.

    `pyglyn_child.erl` makes Python processes children of Erlang and Gleam supervisors; `gleam` has programs
    that talk to Python services. Files that are there already are kept as they are.
    """
    with as_file(files("pyglyn") / "interop") as source:
        found = sorted(path for path in source.rglob("*") if path.suffix in KINDS)
        try:
            for path in found:
                target = folder / path.relative_to(source)
                if target.exists():
                    click.echo(f"{target} is there already", err=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
                click.echo(target)
        except OSError as error:
            raise LocalProtocolError(f"cannot write to {folder}: {error.strerror}") from error
