"""The cookie is seen by nobody who looks at the machine's processes, and is not handed on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from pyglyn.cli import COMMANDS, load_command, options
from pyglyn.testing import eventually
from tests.node.conftest import unique_name

SECRET = "UNSEEN_BY_OTHERS"

NODE = f"""
import asyncio, os, subprocess, sys
from pyglyn import Node, Settings
from pyglyn.net import NetSettings
from pyglyn.supervision import Supervisor, start, worker

def child(me):
    me.send("parent", " ".join(os.environ) + open("/proc/self/environ", errors="replace").read())
    me.receive()

async def main():
    settings = Settings(net=NetSettings(epmd_port=0))
    async with Node("a@localhost", settings=settings) as node, node.process() as me:
        assert node.local.cookie == "{SECRET}"
        await me.register("parent")
        shown = [subprocess.check_output(["env"]).decode(), open("/proc/self/environ").read()]
        for method in ("fork", "spawn"):
            tree = Supervisor(name=method, start=method).add(worker(child, name="child_" + method))
            await start(node, tree)
            shown.append((await me.receive(timeout=30)).decode())
        print([("{SECRET}" in each, "PYGLYN_COOKIE=*" in each) for each in shown])
    async with Node("b@localhost", settings=settings) as node:
        assert node.local.cookie == "{SECRET}"  # a second node of the program has it too

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what others see is in /proc")
def test_the_environments_cookie_is_handed_on_to_nobody(tmp_path: Path) -> None:
    script = tmp_path / "node.py"
    script.write_text(NODE)
    done = subprocess.run(
        [sys.executable, script],
        env={"PYGLYN_COOKIE": SECRET, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = eval(done.stdout.splitlines()[-1])
    assert not any(secret for secret, _ in lines), lines
    assert lines[1] == (False, True)


@pytest.mark.skipif(sys.platform != "linux", reason="what others see is in /proc")
@pytest.mark.parametrize("written", [["--cookie", SECRET], [f"--cookie={SECRET}"]])
async def test_a_commands_cookie_is_taken_out_of_what_ps_shows(epmd: object, written: list[str]) -> None:
    name = unique_name()
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pyglyn", "node", "--sname", name, *written),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    line = Path(f"/proc/{program.pid}/cmdline")
    try:
        shown = await eventually(lambda: b"***" in line.read_bytes() and line.read_bytes(), timeout=60)
        assert SECRET.encode() not in shown
        assert name.encode() in shown
    finally:
        program.terminate()
        await program.wait()


def test_every_command_with_a_cookie_hides_it() -> None:
    with_cookie = []
    for name in COMMANDS:
        command = load_command(name)
        commands = [command, *getattr(command, "commands", {}).values()]
        with_cookie += [each for each in commands if any(p.name == "cookie" for p in each.params)]
    assert len(with_cookie) > 5
    for each in with_cookie:
        (parameter,) = [p for p in each.params if p.name == "cookie"]
        assert parameter.callback is options._hidden
        assert parameter.is_eager
