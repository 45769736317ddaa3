"""Where the cookie comes from. Layer: node.

Source: auth.erl (``read_cookie``, ``check_cookie``, ``create_cookie``); seen the same on OTP 25 and 28. The
order: what the program gives, ``PYGLYN_COOKIE``, ``~/.erlang.cookie``, ``erlang/.erlang.cookie`` in
``$XDG_CONFIG_HOME`` (or ``~/.config``). Only where neither file is there, the one in the home folder is made.
A file that others may read is refused.
"""

from __future__ import annotations

import os
import re
import stat
import string
from typing import TYPE_CHECKING

from pyglyn.errors import DistributionError
from pyglyn.node.hiding import take_from_environment

if TYPE_CHECKING:
    from pathlib import Path

COOKIE_LENGTH = 20
FILE_NAME = ".erlang.cookie"
MAX_LENGTH = 255
"""A cookie is an atom in OTP."""

_CONTENTS = re.compile(rb"([ -~]*)[\r\n ]*", re.DOTALL)
"""The cookie as OTP reads it: blanks in it and around it count, and all after it is line ends and blanks."""


class CookieError(DistributionError):
    """The cookie file cannot be used; the text says what to do."""


def find_cookie(given: str | None = None) -> str:
    """The cookie to use: the given one, the environment's, or that of OTP's file.

    The environment's is taken out of it: programs that are started have no business with it.

    Raises:
        CookieError: the file cannot be read or made, is open to others, or has no cookie in it;
            or what is given is no text.
    """
    from_environment = take_from_environment("PYGLYN_COOKIE")
    if not isinstance(given, str | None):
        raise CookieError(f"the cookie is text, and not of type {type(given).__name__}")
    if given:
        return given
    if from_environment:
        return from_environment
    at_home, in_config = cookie_files()
    for path in (at_home, in_config):
        cookie = read_cookie_file(path)
        if cookie is not None:
            return cookie
    return _create(at_home)


def cookie_files() -> tuple[Path, Path]:
    """Where OTP looks for the cookie: in the home folder first, then in the user's configuration.

    Raises:
        CookieError: this user has no home folder.
    """
    from pathlib import Path  # late: it is much for who gives the cookie

    try:
        home = Path.home()
    except RuntimeError:
        raise CookieError("there is no home folder to find a cookie in: set PYGLYN_COOKIE or HOME") from None
    config = os.environ.get("XDG_CONFIG_HOME") or home / ".config"
    return home / FILE_NAME, Path(config) / "erlang" / FILE_NAME


def read_cookie_file(path: Path) -> str | None:
    """Read a cookie file; None where there is none.

    Raises:
        CookieError: as ``find_cookie``.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CookieError(f"cannot read {path}: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise CookieError(f"{path} is not a regular file")
    if mode & 0o077:
        raise CookieError(f"{path} must be accessible by its owner only: run chmod 400 {path}")
    try:
        found = _CONTENTS.fullmatch(path.read_bytes())
    except OSError as error:
        raise CookieError(f"cannot read {path}: {error.strerror}") from error
    if found is None:
        raise CookieError(
            f"{path} has bad characters in it: a cookie is one line of printable ASCII, as OTP has it"
        )
    cookie = found[1].decode("ascii")
    if not cookie:
        raise CookieError(f"{path} is empty: write a cookie into it or remove it")
    if len(cookie) > MAX_LENGTH:
        raise CookieError(f"{path} has a cookie of {len(cookie)} characters: OTP takes up to {MAX_LENGTH}")
    return cookie


def _create(path: Path) -> str:
    """Make a cookie file with mode 0400; another process may do the same at this moment."""
    import secrets  # half a mebibyte, once in the life of a home directory

    cookie = "".join(secrets.choice(string.ascii_uppercase) for _ in range(COOKIE_LENGTH))
    draft = path.with_name(f"{FILE_NAME}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        # Complete before it has its name: whoever finds the file finds the whole cookie.
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(cookie)
            os.link(draft, path)
        finally:
            draft.unlink()
    except FileExistsError:
        found = read_cookie_file(path)
        if found is None:
            raise CookieError(f"cannot create {path}: it is a link to nowhere") from None
        return found
    except OSError as error:
        raise CookieError(f"cannot create {path}: {error.strerror}") from error
    return cookie
