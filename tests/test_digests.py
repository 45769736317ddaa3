"""CPython's own digests are those of ``hashlib`` and ``hmac``, and cost a node less memory."""

from __future__ import annotations

import hashlib
import hmac
import subprocess
import sys

import pytest

from pyglyn import digests


@pytest.mark.parametrize("data", [b"", b"cookie12345", bytes(range(256))])
def test_the_digest_is_that_of_hashlib(data: bytes) -> None:
    assert (
        digests.md5(data, usedforsecurity=False).digest() == hashlib.md5(data, usedforsecurity=False).digest()
    )


@pytest.mark.parametrize(("one", "other"), [(b"", b""), (b"a", b"a"), (b"a", b"b"), (b"a", b"aa")])
def test_comparing_is_that_of_hmac(one: bytes, other: bytes) -> None:
    assert digests.compare_digest(one, other) is hmac.compare_digest(one, other)


def test_what_is_not_there_comes_from_the_module_instead() -> None:
    assert digests._own("_no_such_module", "md5", "hashlib") is hashlib.md5
    assert digests._own("_operator", "_no_such", "tests.test_digests") is no_such


def no_such() -> None:
    """What the test above finds."""


@pytest.mark.beside
def test_a_node_is_imported_without_openssls_digests_and_zlib() -> None:
    program = (
        "import sys, pyglyn; pyglyn.Node; print({'_hashlib', 'hmac', 'secrets', 'zlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
