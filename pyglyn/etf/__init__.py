"""Terms and the external term format. Layer: etf, pure; above errors only.

``encode`` and ``decode`` have the version byte 131 in front, the ``bare`` forms have not, as on a
connection between nodes. ``IMPLEMENTATION`` tells which codec this is; ``"python"`` is the only one so far.
Text in Erlang syntax is in ``text``.
"""

from __future__ import annotations

from pyglyn.etf import text
from pyglyn.etf.limits import Limits
from pyglyn.etf.normaliser import normalise
from pyglyn.etf.pure import (
    decode,
    decode_bare,
    decode_prefix,
    encode,
    encode_bare,
    encode_parts,
)
from pyglyn.etf.terms import (
    Atom,
    BitString,
    Export,
    Fun,
    ImproperList,
    Pid,
    Port,
    Reference,
    Term,
    TermMap,
    exact_key,
)

IMPLEMENTATION = "python"

__all__ = [
    "IMPLEMENTATION",
    "Atom",
    "BitString",
    "Export",
    "Fun",
    "ImproperList",
    "Limits",
    "Pid",
    "Port",
    "Reference",
    "Term",
    "TermMap",
    "decode",
    "decode_bare",
    "decode_prefix",
    "encode",
    "encode_bare",
    "encode_parts",
    "exact_key",
    "normalise",
    "text",
]
