"""Where the cookie comes from. Layer: node.

Source: auth.erl ("read_cookie", "create_cookie") and the erl manual. The order: what the program gives,
``PYGLYN_COOKIE``, ``~/.erlang.cookie`` (created if absent; refused if others may read it, as OTP does).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import string
from pathlib import Path

from pyglyn.errors import DistributionError

COOKIE_LENGTH = 20


class CookieError(DistributionError):
    """The cookie file cannot be used; the text says what to do."""


def find_cookie(given: str | None = None) -> str:
    """The cookie to use: the given one, the environment's, or the file's.

    Raises:
        CookieError: the file cannot be read or made, is open to others, or is empty.
    """
    if given:
        return given
    from_environment = os.environ.get("PYGLYN_COOKIE")
    if from_environment:
        return from_environment
    return read_cookie_file(Path.home() / ".erlang.cookie")


def read_cookie_file(path: Path) -> str:
    """Read a cookie file; make one with mode 0400 if there is none.

    Raises:
        CookieError: as ``find_cookie``.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return _create(path)
    except OSError as error:
        raise CookieError(f"cannot read {path}: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise CookieError(f"{path} is not a regular file")
    if mode & 0o077:
        raise CookieError(f"{path} must be accessible by its owner only: run chmod 400 {path}")
    try:
        text = path.read_text(encoding="latin-1")
    except OSError as error:
        raise CookieError(f"cannot read {path}: {error.strerror}") from error
    cookie = text.split("\n", 1)[0].strip()
    if not cookie:
        raise CookieError(f"{path} is empty: write a cookie into it or remove it")
    return cookie


def _create(path: Path) -> str:
    cookie = "".join(secrets.choice(string.ascii_uppercase) for _ in range(COOKIE_LENGTH))
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_cookie_file(path)
    except OSError as error:
        raise CookieError(f"cannot create {path}: {error.strerror}") from error
    with contextlib.closing(os.fdopen(handle, "w", encoding="latin-1")) as file:
        file.write(cookie)
        os.fchmod(handle, 0o400)
    return cookie
