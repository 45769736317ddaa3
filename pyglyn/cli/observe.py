"""``pyglyn observe``: a page that shows nodes, their trees, deaths, queries and groups. Layer: cli."""

from __future__ import annotations

import os
import secrets

import rich_click as click
from click.core import ParameterSource

from pyglyn.cli.network import net_settings, network_options
from pyglyn.cli.options import cookie_option, log_level_option, own_name, run, set_up_logging
from pyglyn.node import Node, Settings

TOKEN_VARIABLE = "PYGLYN_HTTP_TOKEN"


def new_token() -> str:
    """The token of a page: from the environment, else a new one."""
    return os.environ.get(TOKEN_VARIABLE) or secrets.token_urlsafe(24)


def address(host: str, port: int, token: str) -> str:
    """What to open. The token is in the fragment, which browsers do not send."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/#{token}"


def http_address(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, int] | None:
    """Callback of an option: ``HOST:PORT``."""
    if value is None:
        return None
    try:
        from pyglyn.http import address_of
    except ModuleNotFoundError as error:
        given = context.get_parameter_source(parameter.name or "") is not ParameterSource.DEFAULT
        what = f"--{parameter.name}" if given else "the page"
        raise click.ClickException(f"{what} needs {error.name}: pip install 'pyglyn[http]'") from error
    try:
        return address_of(value)
    except ValueError as error:
        raise click.UsageError(f"--{parameter.name}: {error}", context) from error


@click.command()
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
@click.option(
    "--http",
    metavar="HOST:PORT",
    callback=http_address,
    default="127.0.0.1:0",
    show_default=True,
    help="Where the page is; port 0 is any free one.",
)
@click.option(
    "--store",
    "stores",
    multiple=True,
    metavar="STORE-URL",
    help="Show the last events of this store, with what caused what; repeatable.",
)
@click.option("--allow-changes", is_flag=True, help="Let the page pause, resume, replay and drive queries.")
@cookie_option
@network_options
@log_level_option("error")
def observe(
    nodes: tuple[str, ...],
    http: tuple[str, int],
    stores: tuple[str, ...],
    allow_changes: bool,
    cookie: str,
    log_level: str,
) -> None:
    """Serve a page that shows NODEs, live, until Ctrl-C; prints its address, with the token in it.

    PYGLYN_HTTP_TOKEN is the token, if it is set. Needs pyglyn[http].
    """
    set_up_logging(log_level)

    async def go() -> None:
        from pyglyn.http import Observer, serve
        from pyglyn.http.pages import routes

        token = new_token()
        settings = Settings(net=net_settings(), observe="off")
        async with Node(own_name(nodes[0]), cookie=cookie or None, settings=settings) as local:
            observer = Observer(local, nodes, may_change=allow_changes, stores=stores)
            server = await serve(local, *http, routes=[routes(observer, token)])
            click.echo(address(http[0], server.port, token))
            await local.run()

    run(go())
