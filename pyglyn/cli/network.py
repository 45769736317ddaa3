"""Options that say how a command's node talks to the cluster, for all commands that are one. Layer: cli.

Their values are kept with the command's context, so that only what makes the node needs to know them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import rich_click as click

from pyglyn.errors import LocalProtocolError
from pyglyn.net import NetSettings, TlsSettings
from pyglyn.net.tls import Contexts, read_option_file

F = TypeVar("F", bound=Callable[..., Any])

_KEPT = "pyglyn.network"


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Callback of an option: keep its value where ``net_settings`` finds it."""
    context.meta.setdefault(_KEPT, {})[parameter.name] = value


_TLS = (
    (
        "--ssl-dist-optfile",
        "FILE",
        "TLS as OTP's -ssl_dist_optfile FILE says; the same file serves BEAM nodes.",
    ),
    ("--tls-cert", "FILE", "PEM file with this node's certificate, for TLS without an option file."),
    ("--tls-key", "FILE", "PEM file with its key, if that is not in the same file."),
    ("--tls-ca", "FILE", "PEM file with the CA: certificates are demanded and checked, both ways."),
)


def network_options(function: F) -> F:
    """The options of every command that is a node."""
    for name, metavar, text in reversed(_TLS):
        function = click.option(name, metavar=metavar, expose_value=False, callback=_keep, help=text)(
            function
        )
    function = click.option(
        "--proto-dist",
        type=click.Choice(["inet_tcp", "inet_tls", "inet6_tcp", "inet6_tls"]),
        metavar="PROTO",
        expose_value=False,
        callback=_keep,
        help="What the nodes of the cluster speak, as OTP's -proto_dist: inet_tcp, inet_tls, inet6_tcp or "
        "inet6_tls. [default: inet_tls where an option for TLS is given, else inet_tcp]",
    )(function)
    function = click.option(
        "--dist-port",
        metavar="PORT",
        type=click.IntRange(1, 65535),
        expose_value=False,
        callback=_keep,
        help="No EPMD: all nodes of the cluster listen at this port, as with OTP's -start_epmd false "
        "-erl_epmd_port PORT. [default: ERL_DIST_PORT, else EPMD is asked]",
    )(function)
    return click.option(
        "--net-ticktime",
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        default=60.0,
        show_default=True,
        expose_value=False,
        callback=_keep,
        help="After how long a silent node counts as dead; the cluster's value (-kernel net_ticktime).",
    )(function)


def network_values() -> dict[str, Any]:
    """The values of these options of the running command, by name."""
    context = click.get_current_context()
    assert context is not None
    kept: dict[str, Any] = context.meta[_KEPT]
    return kept


def net_settings() -> NetSettings:
    """What the options of the running command say; for a node that listens at any port."""
    kept = network_values()
    settings = NetSettings()
    channel = attrs.evolve(settings.channel, net_ticktime_s=kept["net_ticktime"])
    return attrs.evolve(
        settings,
        channel=channel,
        tls=_tls(kept),
        ipv6=(kept["proto_dist"] or "").startswith("inet6"),
        dist_port=kept["dist_port"] or settings.dist_port,
        listen_port=0,
    )


def _tls(kept: dict[str, Any]) -> TlsSettings | None:
    optfile, cert, key, ca = (kept[name] for name in ("ssl_dist_optfile", "tls_cert", "tls_key", "tls_ca"))
    given = [option for option, _, _ in _TLS if kept[option.strip("-").replace("-", "_")]]
    proto = kept["proto_dist"] or ""
    if proto.endswith("_tcp") and given:
        raise click.UsageError(f"{given[0]} is for --proto-dist {proto.replace('tcp', 'tls')}")
    if len(given) > 1 and optfile:
        raise click.UsageError(f"{given[1]} and --ssl-dist-optfile exclude each other")
    if optfile or cert:
        try:
            settings = read_option_file(optfile) if optfile else TlsSettings.of(cert, key, ca)
            Contexts(settings)  # to say here what cannot be used
        except LocalProtocolError as error:
            raise click.UsageError(f"{given[0]}: {error}") from error
        return settings
    if given or proto.endswith("_tls"):
        raise click.UsageError("TLS needs a certificate: --tls-cert, or --ssl-dist-optfile")
    return None
