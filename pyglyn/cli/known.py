"""Which options there are, by command. Layer: cli.

It tells a variable that no command reads without importing all of them;
`tests/cli/test_configuration.py` holds the table to what the commands have.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator

_CLIENT = (
    "json log-level cookie net-ticktime dist-port proto-dist ssl-dist-optfile tls-cert tls-key tls-ca timeout"
)
_QUIET_CLIENT = _CLIENT.removeprefix("json ")
_STORE = "json log-level"

OPTIONS = {
    "node": "sname name connect discover discover-interval app port hidden observe http heartbeat-file "
    f"loop print-config log-format log-config {_CLIENT.removesuffix(' timeout')}",
    "demo": "log-level",
    "epmd": "port log-level",
    "names": "json",
    "certs": "days",
    "interop": "",
    "ping": _CLIENT,
    "doctor": _CLIENT,
    "call": _CLIENT,
    "groups": _CLIENT,
    "tap": f"term scope group {_CLIENT}",
    "publish": f"term scope group bare {_CLIENT}",
    "tree": f"live interval {_CLIENT}",
    "top": f"sort interval {_CLIENT}",
    "observe": f"http store allow-changes {_QUIET_CLIENT.removesuffix(' timeout')}",
    "stop": _QUIET_CLIENT,
    "kill": _QUIET_CLIENT,
    "log-level": _CLIENT,
    "events": f"app aggregate after limit facts tag {_STORE}",
    "store migrate": _STORE,
    "store copy": _STORE,
    "store verify": _STORE,
    "store archive": f"until {_STORE}",
    "store stats": _STORE,
    "trace": _STORE,
    "queries": f"pause resume {_CLIENT}",
    "sql": _CLIENT,
    "replay": f"aggregate wait {_CLIENT}",
    "parked": f"drive {_CLIENT}",
}
"""The options of each command, but ``--help``."""

_OTHERS = frozenset(
    (
        "PYGLYN_CHILD", "PYGLYN_CONFIG", "PYGLYN_DEMO_NODE", "PYGLYN_GLEAM_PACKAGES", "PYGLYN_HTTP_TOKEN",
        "PYGLYN_PURE", "PYGLYN_REQUIRE_ALL", "PYGLYN_SSL_EBINS", "PYGLYN_SYN_EBIN", "PYGLYN_TREE",
    )
)  # fmt: skip
"""Variables that are no option of a command."""

_INJECTED = re.compile(r"PYGLYN(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")
"""What Kubernetes sets in every pod where there is a service whose name begins so."""


def variables(command: str, option: str) -> list[str]:
    """The variables that give an option of a command, the first one first."""
    word = _word(option)
    return [f"PYGLYN_{_word(command)}_{word}", f"PYGLYN_{word}"]


def _word(text: str) -> str:
    return text.upper().replace("-", "_").replace(" ", "_")


def unread(names: Iterable[str]) -> Iterator[str]:
    """A sentence for each variable, of these, that looks like a setting and is none."""
    found = sorted(name for name in names if name.startswith("PYGLYN_") and name not in _OTHERS)
    found = [name for name in found if not name.startswith("PYGLYN_TEST_")]
    if not found:
        return
    known = {
        variable for command, options in OPTIONS.items() for each in options.split()
        for variable in variables(command, each)
    }  # fmt: skip
    for name in found:
        if name in known or _INJECTED.fullmatch(name):
            continue
        nearest = difflib.get_close_matches(name[7:], [each[7:] for each in known], 1, 0.75)
        meant = f": did you mean PYGLYN_{nearest[0]}?" if nearest else ""
        yield f"{name} is in the environment, and no command has such an option{meant}"
