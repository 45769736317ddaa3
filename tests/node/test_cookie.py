"""The cookie file: the same cookie as real nodes read, and nothing written that changes what they read."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from pyglyn.errors import LocalProtocolError, PyglynError
from pyglyn.node import Node, hiding
from pyglyn.node.cookie import CookieError, find_cookie
from pyglyn.testing import Otp, PrivateEpmd

CONTENTS = {
    b"abc": "abc",
    b"abc\r\n": "abc",
    b"abc \n\n": "abc ",
    b" abc\n": " abc",
    b"a b\n": "a b",
    b"  \n": "  ",
    b"~!'\"\\\n": "~!'\"\\",
    b"a" * 255: "a" * 255,
    b"a" * 256: None,
    b"\nabc\n": None,
    b"abc\ndef\n": None,
    b"a\tb\n": None,
    b"abc\t\n": None,
    b"k\xe4se\n": None,
    "käse\n".encode(): None,
    b"a\0b\n": None,
    b"a\x7fb\n": None,
    b"": None,
    b"\n": None,
}
"""What is in a file, and the cookie that OTP 25 and 28 read out of it; None where the node does not start."""

COMPARED = [b"abc \n\n", b" abc\n", b"abc\ndef\n", b"abc\t\n", b"k\xe4se\n", b"\n"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and nothing in the environment that says where a cookie is."""
    for name in ("PYGLYN_COOKIE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hiding, "_taken", {})
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def put(path: Path, contents: bytes, mode: int = 0o400) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents)
    path.chmod(mode)
    return path


def cookie_files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*cookie*"))


def read_by_otp(otp: Otp, epmd: PrivateEpmd) -> str | None:
    """Start a node that looks for its cookie, with the environment of this test; None if it does not start."""
    naming = ("-sname", f"cookie_{os.getpid()}@localhost", "-start_epmd", "false")
    say = 'io:format("cookie=~s=", [erlang:get_cookie()]), halt().'
    env = {key: value for key, value in os.environ.items() if not key.startswith("ERL_")}
    printed = subprocess.run(
        [str(otp.erl), "-noinput", "-boot", "start_clean", *naming, "-eval", say],
        env={**env, **epmd.env, **otp.environment(), "ERL_CRASH_DUMP_SECONDS": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    ).stdout
    _, found, rest = printed.partition(b"cookie=")
    return rest.rpartition(b"=")[0].decode("latin-1") if found else None


def read_by_us() -> str | None:
    try:
        return find_cookie()
    except PyglynError:
        return None


@pytest.mark.parametrize("contents", CONTENTS, ids=repr)
def test_what_counts_as_the_cookie_in_a_file(home: Path, contents: bytes) -> None:
    put(home / ".erlang.cookie", contents)
    assert read_by_us() == CONTENTS[contents]


@pytest.mark.parametrize("contents", COMPARED, ids=repr)
def test_otp_reads_the_same_out_of_a_file(
    home: Path, beam_otp: Otp, epmd: PrivateEpmd, contents: bytes
) -> None:
    put(home / ".erlang.cookie", contents)
    assert read_by_otp(beam_otp, epmd) == CONTENTS[contents]


@pytest.mark.parametrize("variable", ["", "elsewhere"])
def test_the_file_in_the_users_configuration_is_read_and_none_is_made(
    home: Path, beam_otp: Otp, epmd: PrivateEpmd, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A file made in the home folder would come first for every real node started after us."""
    config = home / (variable or ".config")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config) if variable else "")
    put(config / "erlang" / ".erlang.cookie", b"configured\n")
    before = cookie_files_in(home)
    assert find_cookie() == "configured"
    assert read_by_otp(beam_otp, epmd) == "configured"
    assert cookie_files_in(home) == before


def test_the_file_in_the_home_folder_comes_first(home: Path) -> None:
    put(home / ".config/erlang/.erlang.cookie", b"configured")
    put(home / ".erlang.cookie", b"at home")
    assert find_cookie() == "at home"


def test_a_bad_file_is_not_passed_over(home: Path) -> None:
    """As in OTP: the next one is read only where this one is not there."""
    put(home / ".config/erlang/.erlang.cookie", b"configured")
    file = put(home / ".erlang.cookie", b"open", mode=0o444)
    with pytest.raises(CookieError, match=f"^{file} must be accessible by its owner only: run chmod 400"):
        find_cookie()
    file.unlink()
    file.mkdir()
    with pytest.raises(CookieError, match="is not a regular file"):
        find_cookie()


def test_where_there_is_none_one_is_made_that_otp_reads(home: Path, beam_otp: Otp, epmd: PrivateEpmd) -> None:
    cookie = find_cookie()
    assert cookie_files_in(home) == [".erlang.cookie"]
    assert (home / ".erlang.cookie").stat().st_mode & 0o777 == 0o400
    assert read_by_otp(beam_otp, epmd) == find_cookie() == cookie


def test_many_that_make_one_at_the_same_time_agree(home: Path) -> None:
    found: list[str | None] = []
    begin = threading.Barrier(8)

    def find() -> None:
        begin.wait()
        found.append(read_by_us())

    threads = [threading.Thread(target=find) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [find_cookie()] * 8
    assert cookie_files_in(home) == [".erlang.cookie"]


def test_a_user_without_a_home_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(CookieError, match=r"^there is no home folder to find a cookie in"):
        find_cookie()
    monkeypatch.setenv("PYGLYN_COOKIE", "given")
    assert find_cookie() == "given"


@pytest.mark.parametrize("cookie", [5, b"secret", ["secret"]])
def test_a_cookie_that_is_no_text_is_refused_without_being_shown(cookie) -> None:
    with pytest.raises(
        CookieError, match=r"^the cookie is text, and not of type (int|bytes|list)$"
    ) as caught:
        Node("a@localhost", cookie=cookie)
    assert "secret" not in str(caught.value)


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(
        LocalProtocolError, match=r"^a node's name is text such as 'inventory@localhost', and not 5$"
    ):
        Node(5, cookie="c")
