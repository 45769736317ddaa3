"""The files for containers, systemd and Kubernetes: their options are ours, and what they describe runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from pyglyn import Atom
from pyglyn.cli import load_command
from pyglyn.cli.configuration import options_of, variables
from pyglyn.http.server import ROUTES
from pyglyn.testing import eventually, free_port, require
from tests.cli.test_cli import APP, pyglyn, run
from tests.http.asking import get

FOLDER = Path(__file__).parents[2] / "examples" / "deployment"
POD = ".svc.cluster.local"


def manifests() -> dict[tuple[str, str], Any]:
    loaded = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    return {(each["kind"], each["metadata"]["name"]): each for each in loaded}


def container(name: str) -> Any:
    [found] = manifests()["StatefulSet", name]["spec"]["template"]["spec"]["containers"]
    return found


def env_of(name: str) -> dict[str, str]:
    """Its environment, with what Kubernetes would put in."""
    told = {"POD_NAME": f"{name}-0", "POD_NAMESPACE": "shop"}
    env = {}
    for each in container(name)["env"]:
        value = each.get("value", told.get(each["name"], "the_cookie"))
        env[each["name"]] = re.sub(r"\$\((\w+)\)", lambda match: env[match[1]], value)
    return env


def args_of(name: str) -> list[str]:
    env = env_of(name)
    return [re.sub(r"\$\((\w+)\)", lambda m: env[m[1]], word) for word in container(name)["args"]]


def entrypoint() -> list[str]:
    text = (FOLDER / "Containerfile").read_text()
    words: list[str] = json.loads(re.search(r"^ENTRYPOINT (.*)$", text, re.M)[1])  # type: ignore[index]
    return words


def service() -> dict[str, list[str]]:
    lines = (FOLDER / "inventory.service").read_text().splitlines()
    found: dict[str, list[str]] = {}
    for line in lines:
        key, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def unknown(words: list[str]) -> set[str]:
    """The options of ``pyglyn node`` in a command line that there are not."""
    known = {
        name for option in options_of(load_command("node")) for name in (*option.opts, *option.secondary_opts)
    }
    return {word.partition("=")[0] for word in words if word.startswith("--")} - known


def test_all_options_and_variables_are_there() -> None:
    command = service()["ExecStart"][0].split()
    assert not unknown(args_of("inventory"))
    assert not unknown(entrypoint())
    assert not unknown(command)
    assert entrypoint()[:2] == command[:2] == ["/opt/inventory/bin/pyglyn", "node"]
    known = {
        each for option in options_of(load_command("node")) for each in variables("node", option.name or "")
    }
    set_ = {name for name in env_of("inventory") if name.startswith("PYGLYN_")}
    set_ |= set(re.findall(r"PYGLYN_\w+", (FOLDER / "inventory.service").read_text()))
    assert len(set_) == 3
    assert set_ <= known


async def test_what_the_manifest_gives_to_a_node_holds() -> None:
    words = [*entrypoint()[1:], *args_of("inventory"), "--print-config"]
    status, output = await run(*words, env=env_of("inventory"))
    assert status == 0, output
    held = dict(line.split(" = ", 1) for line in output.splitlines() if " = " in line)
    assert held["name"].startswith(f'"inventory@inventory-0.inventory.shop{POD}"')
    assert held["net-ticktime"] == "30.0  # environment, PYGLYN_NET_TICKTIME"
    assert held["cookie"] == '"***"  # environment, PYGLYN_COOKIE'
    assert f"srv:order@_dist._tcp.order.shop{POD}" in held["discover"]


def test_ports_probes_and_names_of_the_manifest_fit_together() -> None:
    everything, pod = manifests(), container("inventory")
    ports = {each["name"]: each["containerPort"] for each in pod["ports"]}
    args = dict(word.split("=", 1) for word in args_of("inventory") if "discover" not in word)
    assert args["--dist-port"] == str(ports["dist"])
    assert args["--http"].endswith(f":{ports['http']}")
    assert f"-erl_epmd_port {ports['dist']} " in env_of("order")["ERL_AFLAGS"]
    assert f"net_ticktime {env_of('inventory')['PYGLYN_NET_TICKTIME']}" in env_of("order")["ERL_AFLAGS"]
    for name in ("inventory", "order"):
        service, stateful = everything["Service", name]["spec"], everything["StatefulSet", name]["spec"]
        assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
        assert service["selector"] == stateful["template"]["metadata"]["labels"]
        assert stateful["serviceName"] == name
        [port] = service["ports"]
        assert port == {"name": "dist", "port": ports["dist"]}  # what _dist._tcp stands for
    served = {route.path for make in ROUTES for route in make(_NoNode())}  # type: ignore[arg-type, attr-defined]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert pod[probe]["httpGet"]["path"] in served
        assert pod[probe]["httpGet"]["port"] in ports
    grace = everything["StatefulSet", "inventory"]["spec"]["template"]["spec"][
        "terminationGracePeriodSeconds"
    ]
    assert grace > pod["lifecycle"]["preStop"]["sleep"]["seconds"]


class _NoNode:
    """Enough of a node to be asked which paths it has."""

    class workers:
        @staticmethod
        def count() -> None: ...


def test_the_image_is_for_any_user_and_says_which_ports_it_has() -> None:
    text = (FOLDER / "Containerfile").read_text()
    ports = {str(each["containerPort"]) for each in container("inventory")["ports"]}
    assert set(re.search(r"^EXPOSE (.*)$", text, re.M)[1].split()) == ports  # type: ignore[index]
    user = re.search(r"^USER (\d+)$", text, re.M)[1]  # type: ignore[index]
    spec = manifests()["StatefulSet", "inventory"]["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsUser"] == int(user) > 0


def _tool(name: str) -> str:
    found = Path(sys.executable).parent / name
    require(found.exists(), f"no {name}: `pip install -e '.[test]'`")
    return str(found)


def test_a_linter_finds_nothing_in_the_container_file(tmp_path: Path) -> None:
    hadolint, file = _tool("hadolint"), tmp_path / "Containerfile"
    file.write_text((FOLDER / "Containerfile").read_text())
    done = subprocess.run([hadolint, str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    file.write_text(file.read_text().replace("WORKDIR /opt", "WORKDIR opt"))
    done = subprocess.run([hadolint, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DL3000" in done.stdout  # it does look


def test_the_manifest_is_valid_by_the_schemas_of_kubernetes(tmp_path: Path) -> None:
    validate, file = _tool("kubernetes-validate"), tmp_path / "kubernetes.yaml"
    file.write_text((FOLDER / "kubernetes.yaml").read_text())
    words = [validate, "--strict", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    file.write_text(file.read_text().replace("serviceName:", "nameOfService:"))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "nameOfService" in done.stdout + done.stderr  # it does look
    assert done.returncode != 0


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    require(shutil.which("systemd-analyze"), "no systemd-analyze: install systemd")
    unit = tmp_path / "inventory.service"
    text = (FOLDER / "inventory.service").read_text()
    unit.write_text(text.replace("/opt/inventory/bin/pyglyn", str(Path(sys.executable).parent / "pyglyn")))
    words = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "inventory.service" in line]
    assert (done.returncode, complaints) == (0, []), done.stderr
    unit.write_text(unit.read_text().replace("Type=notify", "Type=notifies"))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "inventory.service" in done.stderr  # it does look


async def test_the_nodes_of_the_manifest_meet(beams: Any, tmp_path: Path) -> None:
    """As in the manifest but for addresses: a pod's is one of this machine's own, and its name that address."""
    (tmp_path / "inventory.py").write_text(APP)
    port, http = free_port(), free_port()
    network = f"127.{os.getpid() % 250}.{port % 250}"
    flags = env_of("order")["ERL_AFLAGS"].replace("4370", str(port))
    interface = f"{{{network.replace('.', ',')},3}}"
    order = await beams.start(
        f"order@{network}.3", args=("-kernel", "inet_dist_use_interface", interface), env={"ERL_AFLAGS": flags},
        cookie="the_cookie",
    )  # fmt: skip
    own = f"inventory@{network}.2"
    words = [
        word.replace("4370", str(port)).replace("9568", str(http)) for word in args_of("inventory")
        if "--discover" not in word
    ]  # fmt: skip
    words = [f"--name={own}" if word.startswith("--name=") else word for word in words]
    args = (*entrypoint()[1:], *words, f"--discover=list:{order.name}", "--port=0")
    async with pyglyn(*args, env=env_of("inventory"), cwd=tmp_path) as node:
        await node.says(f"{order.name} is up")
        assert await order.eval("nodes(hidden)") == [Atom(own)]
        assert await order.eval('gen_server:call({stock, N}, <<"laptop">>)', N=Atom(own)) == 10
        path = container("inventory")["readinessProbe"]["httpGet"]["path"]

        async def ready() -> bool:
            return (await get(http, path))[0] == 200

        await eventually(ready, 20)
        node.process.terminate()
        assert await node.ends() == 0
