"""Prometheus' text format, version 0.0.4. Layer: http; pure.

Source: prometheus.io, "Exposition formats".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@attrs.define(kw_only=True)
class Family:
    """All samples of one name.

    Attributes:
        name: without labels; that of a counter ends in ``_total``.
        kind: ``gauge`` or ``counter``.
        help: one sentence.
        samples: labels and value of each.
    """

    name: str
    kind: str
    help: str
    samples: list[tuple[Mapping[str, str], float]] = attrs.field(factory=list)

    def add(self, value: float, **labels: str) -> None:
        """Add a sample."""
        self.samples.append((labels, value))


def render(families: Iterable[Family]) -> str:
    """Write families, those without samples too: so it is seen that they exist."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {_escaped(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines += (f"{family.name}{_labels(labels)} {_number(value)}" for labels, value in family.samples)
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    quoted = (
        f'{name}="{_escaped(_utf8(value)).replace(chr(34), chr(92) + chr(34))}"'
        for name, value in labels.items()
    )
    return "{" + ",".join(quoted) + "}"


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
