"""The page in a browser, of a real tree under real deaths, and its JSON API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from pyglyn import Node
from pyglyn import eventsourcing as es
from pyglyn.errors import DomainError
from pyglyn.etf import Atom
from pyglyn.groups import pg
from pyglyn.http import HttpServer, Observer, serve
from pyglyn.http.pages import routes
from pyglyn.supervision import Supervisor, start, worker
from pyglyn.testing import eventually
from pyglyn.testing.bank import BankAccount, BankAccountEvent, OpenAccount, apply, handle
from tests.cli.test_cli import pyglyn
from tests.eventsourcing.handles import bank_at
from tests.http.asking import get
from tests.http.browser import Page, chromium, tab
from tests.supervision.service import Probe

TOKEN = "a_token_for_this_test_alone"


class Served:
    """A node with a tree and a page.

    Attributes:
        url: of the page, with the token.
    """

    def __init__(self, node: Node, server: HttpServer) -> None:
        self.node = node
        self.server = server
        self.port = server.port
        self.base = f"http://127.0.0.1:{server.port}"
        self.url = f"{self.base}/#{TOKEN}"

    async def os_pid(self, name: str) -> int:
        found: Any = await self.node.call(name, Atom("os_pid"))
        return found

    async def get(self, path: str, token: str = TOKEN) -> tuple[int, Any]:
        async with aiohttp.ClientSession() as session:
            headers = {"Authorization": f"Bearer {token}"}
            async with session.get(self.base + path, headers=headers) as answer:
                return answer.status, await answer.json()

    async def order(self, **what: Any) -> tuple[int, Any]:
        async with aiohttp.ClientSession() as session:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with session.post(self.base + "/api/queries", json=what, headers=headers) as answer:
                return answer.status, await answer.json()


def row_of(name: str) -> str:
    """The selector of a child's row in the tree."""
    return f'[role=treeitem][data-key$=" {name} "]'


@pytest_asyncio.fixture
async def served(epmd: Any, request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    """The node's own page; indirect parameters are whether it may change something and who else is shown."""
    may_change, *others = getattr(request, "param", (False,))
    async with Node(f"page_{secrets.token_hex(4)}@localhost", cookie="page") as node:
        observer = Observer(node, [node.name, *others], may_change=may_change)
        server = await serve(node, "127.0.0.1", 0, routes=[routes(observer, TOKEN)])
        tree = Supervisor("one_for_one", intensity=50, name="top").add(worker(Probe, name="a"))
        await start(node, tree.add(worker(Probe, name="stuck")))
        yield Served(node, server)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with chromium(tmp_path_factory.mktemp("chromium")) as port:
        yield port


@pytest_asyncio.fixture
async def page(browser: int) -> AsyncIterator[Page]:
    async with tab(browser) as each:
        yield each


async def test_a_death_is_on_the_page_with_its_reason_and_the_restart_without_a_reload(
    served: Served, page: Page
) -> None:
    await page.open(served.url)
    tree = await page.shows("stuck", "#tree")
    assert "top" in tree
    os_pid = await served.os_pid("a")
    assert str(os_pid) in tree
    assert TOKEN not in await page.eval("location.href")
    await page.eval("window.notLoadedAgain = true")
    os.kill(os_pid, signal.SIGKILL)
    deaths = await page.shows("{signal,9}", "#deaths")
    assert "a <" in deaths
    await page.shows("ended last: {signal,9}", "#tree")
    await page.shows("1", f"{row_of('a')} .warn")
    assert str(await served.os_pid("a")) in await page.shows("gen_server:run/2", row_of("a"))
    assert await page.eval("window.notLoadedAgain") is True


async def test_a_page_that_connects_again_shows_no_death_twice(served: Served, page: Page) -> None:
    await page.open(served.url)
    await page.shows("stuck", "#tree")
    os.kill(await served.os_pid("a"), signal.SIGKILL)
    await page.shows("{signal,9}", "#deaths")
    await served.server.stop()
    await page.shows("trying again", "#link")
    await served.server.start("127.0.0.1", served.port)
    async with served.node.process("later"):
        await page.shows("later", "#tree")
    assert await page.eval("document.querySelectorAll('#deaths li').length") == 1


async def test_the_tree_is_walked_and_folded_by_keyboard(served: Served, page: Page) -> None:
    await page.open(served.url)
    await page.shows("stuck", "#tree")
    await page.eval("document.querySelector('[role=treeitem][tabindex=\"0\"]').focus()")
    names = []
    for _ in range(4):
        names.append(await page.eval("document.activeElement.querySelector('.name').textContent"))
        await page.press("ArrowDown")
    assert len(set(names)) == 4
    await page.press("Home")
    await page.press("ArrowLeft")
    assert await page.eval("document.activeElement.getAttribute('aria-expanded')") == "false"
    await page.shows(names[0], "#tree")
    assert names[1] not in (await page.eval("document.querySelector('#tree').innerText")).split()
    await page.press("ArrowRight")
    assert await page.eval("document.activeElement.getAttribute('aria-expanded')") == "true"


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("dark", [False, True])
async def test_nothing_is_wider_than_the_window_in_both_colours(
    served: Served, page: Page, width: int, dark: bool
) -> None:
    await page.size(width, 900, dark)
    await page.open(served.url)
    await page.shows("stuck", "#tree")
    assert await page.eval("document.documentElement.scrollWidth") <= width
    ground, ink = await page.eval(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    brightness = [sum(map(int, colour[4:-1].split(", "))) for colour in (ground, ink)]
    assert (brightness[0] < brightness[1]) is dark
    asked = await page.eval(
        "performance.getEntriesByType('resource').map((each) => new URL(each.name).origin)"
    )
    assert set(asked) == {served.base}


@pytest.mark.parametrize("served", [(False, "nobody_there@localhost")], indirect=True)
async def test_the_page_says_what_is_wrong(served: Served, page: Page) -> None:
    await page.open(f"{served.base}/#not_the_token_of_this_server")
    await page.shows("wrong token", "#link")
    await page.eval(f"document.querySelector('#token').value = '{TOKEN}'")
    await page.eval("document.querySelector('#login button').click()")
    await page.shows("live", "#link")
    await page.shows("nobody_there@localhost\nclosed:", "#nodes")
    await page.eval("document.querySelector('[data-node^=nobody]').click()")
    await page.shows("nobody_there@localhost is closed", "#said")
    await page.eval("document.querySelector('[data-node]').click()")
    served.node.cast("stuck", Atom("busy"))
    await page.shows("no_answer", row_of("stuck"))  # one worker, not the page, nor the node
    assert "slow" not in await page.shows(served.node.name, "#nodes")
    await page.shows("live", "#link")


async def test_a_node_that_stands_still_and_one_that_ends_are_said(served: Served, page: Page) -> None:
    name = f"still_{secrets.token_hex(4)}@localhost"
    async with pyglyn("node", "--sname", name, "--cookie", "page") as program:
        observer = Observer(served.node, [name])
        server = await serve(served.node, "127.0.0.1", 0, routes=[routes(observer, TOKEN)])
        await page.open(f"http://127.0.0.1:{server.port}/#{TOKEN}")
        await page.shows(f"{name}\npyglyn", "#nodes")
        program.process.send_signal(signal.SIGSTOP)
        await page.shows("slow: no answer within", "#nodes")
        assert "net_kernel" in await page.shows("net_kernel", "#tree")
        await page.shows("is slow: no answer within 3 s. Below is what was so at", "#said")
        program.process.kill()
        await page.shows("closed:", "#nodes")


async def test_a_server_that_is_gone_is_said(epmd: Any, page: Page) -> None:
    async with Node(f"page_{secrets.token_hex(4)}@localhost", cookie="page") as node:
        observer = Observer(node, [node.name])
        server = await serve(node, "127.0.0.1", 0, routes=[routes(observer, TOKEN)])
        await page.open(f"http://127.0.0.1:{server.port}/#{TOKEN}")
        await page.shows("live", "#link")
    await page.shows("trying again", "#link")


@pytest.mark.parametrize("served", [(True,)], indirect=True)
async def test_an_event_is_parked_driven_and_all_are_replayed_on_the_page(
    served: Served, page: Page, tmp_path: Path
) -> None:
    url = f"sqlite:{tmp_path}/bank.db"
    store = es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")
    bank = es.service("bank", store, handle=handle, apply=apply, empty_state=BankAccount(), queries=[])
    await es.start(served.node, bank)
    failing = True

    async def project(tx: es.Transaction[Any, Any], envelope: Any) -> None:
        if failing and envelope.aggregate_id == "b":
            raise DomainError("not b")

    async def undo(tx: es.Transaction[Any, Any], aggregate_id: str | None) -> None:
        pass

    policy = es.FailurePolicy(retries=0)
    query = es.DurableQuery("levels", project, store=store, into=store, policy=policy, on_reset=undo)
    await query.start(served.node)
    for id in ("a", "b"):
        await bank_at(served.node).execute(id, OpenAccount(id))
    await page.open(served.url)
    await page.shows("1 parked", "#queries")
    await page.shows("Events a second\n0.0 2 so far", "#rates")
    raw = await page.eval("document.querySelector('#queries details').textContent")
    assert "not b" in raw
    assert '"event-type":"account-opened"' in raw.replace(": ", ":")
    await page.eval("document.querySelector('#queries details').open = true")
    failing = False
    await page.eval("document.querySelector('[data-key^=\"levels drive null\"]').click()")
    await page.shows("0 parked", "#queries")
    await page.eval("document.querySelector('[data-key^=\"levels pause\"]').click()")
    await page.shows("paused", "#queries")
    await page.eval("document.querySelector('[data-key^=\"levels resume\"]').click()")
    await page.shows("Pause", "#queries")


@pytest.mark.parametrize("served", [(True,)], indirect=True)
async def test_a_replay_is_started_on_the_page_and_moves_there(
    served: Served, page: Page, tmp_path: Path
) -> None:
    url = f"sqlite:{tmp_path}/bank.db"
    store = es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")
    bank = es.service("bank", store, handle=handle, apply=apply, empty_state=BankAccount(), queries=[])
    await es.start(served.node, bank)
    steps = asyncio.Semaphore(100)

    async def project(tx: es.Transaction[Any, Any], envelope: Any) -> None:
        await steps.acquire()

    async def undo(tx: es.Transaction[Any, Any], aggregate_id: str | None) -> None:
        pass

    query = es.DurableQuery(
        "levels", project, store=store, into=store, on_reset=undo, limits=es.BatchLimits(size=1)
    )
    await query.start(served.node)
    for id in "abcd":
        await bank_at(served.node).execute(id, OpenAccount(id))
    await page.open(served.url)
    await page.shows("position 4 of 4", "#queries")
    await page.eval("window.notLoadedAgain = true")
    while not steps.locked():
        await steps.acquire()
    await page.eval("document.querySelector('[data-key^=\"levels replay\"]').click()")
    for done in range(4):
        await page.shows(f"position {done} of 4", "#queries")
        shown = "[...document.querySelectorAll('#queries progress')].map((each) => [each.value, each.max])"
        assert await page.eval(shown) == [[done, 4]]
        steps.release()
    await page.shows("position 4 of 4", "#queries")
    assert await page.eval("window.notLoadedAgain") is True


async def test_what_is_unfolded_and_focused_stays_so_when_the_page_is_drawn_anew(
    served: Served, page: Page
) -> None:
    await page.open(served.url)
    await page.shows("stuck", "#tree")
    script = f"document.querySelector('{row_of('stuck')}')"
    await page.eval(
        "window.drawn = 0; new MutationObserver(() => { window.drawn += 1; })"
        ".observe(document.querySelector('#tree'), { subtree: true, childList: true, characterData: true })"
    )
    os_pid = await served.os_pid("a")

    async def stays() -> bool:
        """A row that a busy node did not tell of in time is gone for once, and the focus with it."""
        await page.shows("stuck", "#tree")
        await page.eval(f"window.kept = {script}; window.kept.focus(); window.drawn = 0")
        with contextlib.suppress(ProcessLookupError):
            os.kill(os_pid, signal.SIGKILL)
        await page.shows("ended last", "#tree")
        await eventually(lambda: page.eval("window.drawn > 0"), timeout=30)
        return await page.eval(f"window.kept === {script} && document.activeElement === window.kept") is True

    await eventually(stays, timeout=30)


async def test_the_last_events_are_below_what_caused_them(served: Served, page: Page, tmp_path: Path) -> None:
    """Those of the node's own services, and those of stores that are given by their addresses, as one."""
    url = f"sqlite:{tmp_path}/bank.db"

    async def gift(id: str, envelopes: list[Any]) -> None:
        if id == "a":
            await bank_at(served.node).execute("b", OpenAccount("b"))

    store = es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")
    empty = BankAccount()
    await es.start(
        served.node,
        es.service("bank", store, handle=handle, apply=apply, empty_state=empty, queries=[("gift", gift)]),
    )
    await bank_at(served.node).execute("a", OpenAccount("a"))
    await page.open(served.url)
    await page.shows("BankAccount/b/1", "#events ul ul")
    assert served.node.name in await page.shows("BankAccount/a/1", "#events")
    await bank_at(served.node).execute("c", OpenAccount("c"))
    await page.shows("BankAccount/c/1", "#events")
    observer = Observer(served.node, [served.node.name], stores=[url, f"sqlite:{tmp_path}/missing.db"])
    server = await serve(served.node, "127.0.0.1", 0, routes=[routes(observer, TOKEN)])
    await page.open(f"http://127.0.0.1:{server.port}/#{TOKEN}")
    await page.shows("BankAccount/b/1", "#events ul ul")
    assert "there is no file" in await page.shows("missing.db", "#events")
    shown = await page.eval("[...document.querySelectorAll('#events li')].map((each) => each.dataset.key)")
    assert sorted(shown) == ["BankAccount/a/1", "BankAccount/b/1", "BankAccount/c/1"]


async def test_groups_are_shown_as_all_nodes_see_them(served: Served, page: Page) -> None:
    scope = f"scope_{secrets.token_hex(4)}"
    a = served.node.whereis("a")
    assert a is not None
    names = [f"page_{secrets.token_hex(4)}@localhost" for _ in range(2)]
    async with Node(names[0], cookie="page") as other, Node(names[1], cookie="page") as looking:
        for node in (served.node, other):
            pg.start(node, scope)
        await pg.join(served.node, b"shoppers", a, scope=scope)
        observer = Observer(looking, [served.node.name, other.name])
        server = await serve(looking, "127.0.0.1", 0, routes=[routes(observer, TOKEN)])
        await page.open(f"http://127.0.0.1:{server.port}/#{TOKEN}")
        assert f"pg {scope}" in await page.shows("shoppers", "#groups")
        await page.shows(f"on {served.node.name} – not known on {other.name}", "#groups dd")
        await other.connect(served.node.name)

        async def known() -> bool:
            return await pg.get_members(other, b"shoppers", scope=scope) == [a]

        await eventually(known)

        async def agreed() -> bool:
            return "not known" not in await page.shows("shoppers", "#groups")

        await eventually(agreed, 60)


async def test_the_api_tells_nothing_without_the_token_and_changes_nothing_unasked(served: Served) -> None:
    for token in ("", "wrong", TOKEN + "x"):
        assert (await served.get("/api/nodes", token))[0] == 401
    status, found = await served.get("/api/nodes")
    assert status == 200
    (node,) = found["nodes"]
    assert node["name"] == served.node.name
    assert {"a", "stuck", "top"} < {process["name"] for process in node["processes"]}
    status, error = await served.order(node=served.node.name, query="levels", order="pause")
    assert (status, error) == (403, {"error": "this page only reads"})


async def test_many_who_look_and_never_read_leave_room_for_who_asks_whether_the_node_is_ready(
    served: Served,
) -> None:
    readers = []
    for _ in range(300):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"GET /api/stream HTTP/1.1\r\nHost: a\r\n")
        writer.write(f"Authorization: Bearer {TOKEN}\r\n\r\n".encode())
        readers.append(writer)
        status = (await reader.readuntil(b"\r\n")).split()[1] if len(readers) % 50 == 0 else None
    assert status == b"503"
    assert (await get(served.port, "/livez"))[0] == 200
    assert (await get(served.port, "/readyz"))[0] == 200
    for writer in readers:
        writer.transport.abort()

    async def is_told() -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(f"GET /api/stream HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        status = (await reader.readuntil(b"\r\n")).split()[1]
        writer.transport.abort()
        return status == b"200"

    await eventually(is_told)


@pytest.mark.parametrize("served", [(True,)], indirect=True)
async def test_odd_requests_are_refused_in_words(served: Served) -> None:
    async def status(head: str, body: bytes = b"", token: bytes = TOKEN.encode()) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(
            f"{head} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {len(body)}\r\n".encode()
        )
        writer.write(b"Authorization: Bearer " + token + b"\r\n\r\n" + body)
        answer = await reader.read()
        writer.close()
        return int(answer.split()[1])

    assert await status("GET /api/nodes", token=b"\xff\xc3") == 401
    order = {"node": served.node.name, "query": "levels", "order": "drive", "id": float("inf")}
    for odd in (order, {**order, "order": ["pause"]}, {**order, "node": []}, [], None):
        assert await status("POST /api/queries", json.dumps(odd).encode()) == 400
    assert await status("POST /api/queries", b"[" * 100_000) == 400
    assert await status("POST /api/queries", b"\xff") == 400
    for name in ("", "nobody", "x" * 300):
        assert (await served.order(node=served.node.name, query=name, order="pause"))[0] == 409


async def test_a_node_prints_the_address_of_its_page_unless_it_was_given_the_token() -> None:
    for env in ({}, {"PYGLYN_HTTP_TOKEN": TOKEN}):
        name = f"printed_{secrets.token_hex(4)}@localhost"
        args = ("node", "--sname", name, "--cookie", "page", "--http", "127.0.0.1:0")
        async with pyglyn(*args, env=env) as program:
            port = int((await program.says(r"serves HTTP at 127\.0\.0\.1, port (\d+)"))[1])
            if not env:
                token = (await program.says(rf"observe at http://127\.0\.0\.1:{port}/#(\S{{20,}})"))[1]
            else:
                token = TOKEN
            there = Served(None, HttpServer(None))  # type: ignore[arg-type]
            there.base = f"http://127.0.0.1:{port}"
            assert (await there.get("/api/nodes", token))[0] == 200
            assert "observe at" not in program.output or not env


async def test_observe_shows_a_node_from_outside(served: Served) -> None:
    args = ("observe", served.node.name, "--cookie", "page")
    async with pyglyn(*args, env={"PYGLYN_HTTP_TOKEN": TOKEN}) as program:
        base = (await program.says(rf"(http://127\.0\.0\.1:\d+)/#{TOKEN}"))[1]
        there = Served(served.node, HttpServer(served.node))
        there.base = base

        async def seen() -> Any:
            _, found = await there.get("/api/nodes")
            return "stuck" in {process["name"] for process in found["nodes"][0]["processes"]}

        await eventually(seen, 30)
