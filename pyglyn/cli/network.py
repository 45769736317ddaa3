"""Options that say how a command's node talks to the cluster, for all commands that are one. Layer: cli.

Their values are kept with the command's context, so that only what makes the node needs to know them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import rich_click as click

from pyglyn.net import NetSettings

F = TypeVar("F", bound=Callable[..., Any])

_KEPT = "pyglyn.network"


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Callback of an option: keep its value where ``net_settings`` finds it."""
    context.meta.setdefault(_KEPT, {})[parameter.name] = value


def network_options(function: F) -> F:
    """The options of every command that is a node."""
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


def net_settings() -> NetSettings:
    """What the options of the running command say."""
    context = click.get_current_context()
    assert context is not None
    kept: dict[str, Any] = context.meta[_KEPT]
    settings = NetSettings()
    return attrs.evolve(settings, channel=attrs.evolve(settings.channel, net_ticktime_s=kept["net_ticktime"]))
