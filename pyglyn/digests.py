"""The digest of the distribution handshake, and comparing without telling by time. Layer: digests; pure.

``hashlib``, ``hmac`` and ``secrets`` have OpenSSL set up all of its digests, three quarters of a mebibyte in
every node. So CPython's own functions are taken from where those modules have them too, and from the modules
where there are none.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def _own(module: str, name: str, instead: str) -> Any:
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError):
        return getattr(import_module(instead), name.lstrip("_"))


md5: Callable[..., Any] = _own("_md5", "md5", "hashlib")
"""``hashlib.md5``."""

compare_digest: Callable[[bytes, bytes], bool] = _own("_operator", "_compare_digest", "hmac")
"""``hmac.compare_digest``."""
