"""Which nodes there are: lists, variables, and a DNS server of the test's own."""

from __future__ import annotations

import re
import sys

import pytest

from pyglyn.errors import DiscoveryError
from pyglyn.net.discovery import DnsAddresses, DnsServices, FromVariable, Listed, from_text
from tests.net.dns_server import dns_server

HEADLESS = "inventory.default.svc.cluster.local."


def at(server, kind, name=HEADLESS, **more):
    return kind(name=name, alive="inventory", servers=("127.0.0.1",), port=server.port, **more)


async def test_each_address_of_a_name_is_a_node():
    async with dns_server() as server:
        server.records[HEADLESS, "A"] = ["10.0.0.7", "10.0.0.8"]
        server.records[HEADLESS, "AAAA"] = ["2001:db8::7"]
        assert sorted(await at(server, DnsAddresses).nodes()) == ["inventory@10.0.0.7", "inventory@10.0.0.8"]
        assert await at(server, DnsAddresses, ipv6=True).nodes() == ["inventory@2001:db8::7"]


async def test_each_host_of_a_service_is_a_node():
    service = f"_dist._tcp.{HEADLESS}"
    async with dns_server() as server:
        server.records[service, "SRV"] = [f"0 50 4370 inventory-{i}.{HEADLESS}" for i in range(3)]
        assert sorted(await at(server, DnsServices, service).nodes()) == [
            f"inventory@inventory-{i}.inventory.default.svc.cluster.local" for i in range(3)
        ]


async def test_a_name_that_is_not_there_or_has_no_such_records_stands_for_no_nodes():
    async with dns_server() as server:
        assert await at(server, DnsAddresses).nodes() == []
        server.records[HEADLESS, "A"] = ["10.0.0.7"]
        assert await at(server, DnsServices).nodes() == []
        assert (HEADLESS, "SRV") in server.asked


async def test_a_server_that_fails_or_does_not_answer_is_no_empty_cluster():
    async with dns_server() as server:
        server.fails = True
        with pytest.raises(
            DiscoveryError, match=f"^DNS does not say who is {re.escape(HEADLESS)}: .*SERVFAIL"
        ):
            await at(server, DnsAddresses, timeout_s=2.0).nodes()
        server.fails, server.silent = False, True
        with pytest.raises(DiscoveryError, match="does not say who is"):
            await at(server, DnsAddresses, timeout_s=0.2).nodes()


async def test_without_dnspython_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dns.asyncresolver", None)
    with pytest.raises(DiscoveryError, match=r"pip install 'pyglyn\[dns\]'"):
        await DnsAddresses(name="x", alive="y").nodes()


async def test_a_list_and_a_variable_name_nodes_or_hosts(monkeypatch):
    assert await Listed(("a@x", "b@y")).nodes() == ("a@x", "b@y")
    found = FromVariable("THE_NODES", "inventory")
    assert await found.nodes() == []
    monkeypatch.setenv("THE_NODES", "host-a, order@host-b\nhost-c")
    assert await found.nodes() == ["inventory@host-a", "order@host-b", "inventory@host-c"]


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("list:a@x,y", Listed(("a@x", "stock@y"))),
        ("env:NODES", FromVariable("NODES", "stock")),
        ("dns:stock.svc", DnsAddresses(name="stock.svc", alive="stock")),
        ("dns:order@orders.svc", DnsAddresses(name="orders.svc", alive="order")),
        ("srv:_dist._tcp.stock.svc", DnsServices(name="_dist._tcp.stock.svc", alive="stock")),
        ("srv:order@orders.svc", DnsServices(name="orders.svc", alive="order")),
    ],
)
def test_a_discovery_in_one_word(text, means):
    assert from_text(text, "stock") == means


def test_aaaa_records_are_for_nodes_of_ipv6():
    assert from_text("dns:x", "a", ipv6=True) == DnsAddresses(name="x", alive="a", ipv6=True)


@pytest.mark.parametrize("text", ["", "dns:", "dns:a@", "srv:", "list:", "env:", "gossip:x", "inventory.svc"])
def test_a_word_that_says_nowhere_to_look_is_refused(text):
    with pytest.raises(DiscoveryError, match=r"says nowhere to look for nodes: write list:A@X"):
        from_text(text, "stock")
