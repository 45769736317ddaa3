"""Terms and the external term format. Layer: etf, pure; above errors only.

``encode`` and ``decode`` have the version byte 131 in front, the ``bare`` forms have not, as on a
connection between nodes. Text in Erlang syntax is in ``text``.

There are two codecs that do the same: ``pure``, the definition, and ``_speedups`` in C (see ``c/codec.h``),
which is used where it could be built. ``IMPLEMENTATION`` tells which one this is, ``"c"`` or ``"python"``;
``PYGLYN_PURE=1`` in the environment makes it the latter.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from pyglyn.etf.frames import cut_frames, join_frames, pack_frame
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
    atom_count,
    exact_key,
)

if TYPE_CHECKING:
    from pyglyn.etf import text

IMPLEMENTATION = "python"

if os.environ.get("PYGLYN_PURE") != "1":
    try:
        from pyglyn.etf._speedups import (
            cut_frames,
            decode,
            decode_bare,
            decode_prefix,
            encode,
            encode_bare,
            encode_parts,
            join_frames,
            normalise,
            pack_frame,
        )
    except ImportError:
        pass
    else:
        IMPLEMENTATION = "c"

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
    "atom_count",
    "cut_frames",
    "decode",
    "decode_bare",
    "decode_prefix",
    "encode",
    "encode_bare",
    "encode_parts",
    "exact_key",
    "join_frames",
    "normalise",
    "pack_frame",
    "text",
]


def __getattr__(name: str) -> ModuleType:
    """Import ``text`` when it is first used: most nodes show and parse no term."""
    if name != "text":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("pyglyn.etf.text")
