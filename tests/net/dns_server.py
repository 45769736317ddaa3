"""A small DNS server, for tests that ask one: UDP on loopback, records from a table that may change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import dns.flags
import dns.message
import dns.rcode
import dns.rrset


class DnsServer(asyncio.DatagramProtocol):
    """The server.

    Attributes:
        records: texts of records by name (with the dot at the end) and type; a name without any does not exist.
        fails: answer SERVFAIL to everything.
        silent: answer nothing.
        asked: the questions so far.
        port: where it listens, on 127.0.0.1.
    """

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], list[str]] = {}
        self.fails = False
        self.silent = False
        self.asked: list[tuple[str, str]] = []
        self.port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        question = dns.message.from_wire(data)
        name = question.question[0].name.to_text()
        kind = dns.rdatatype.to_text(question.question[0].rdtype)
        self.asked.append((name, kind))
        if self.silent:
            return
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.AA
        found = self.records.get((name, kind), [])
        if self.fails:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif found:
            answer.answer.append(dns.rrset.from_text(name, 1, "IN", kind, *found))
        elif not any(known == name for known, _ in self.records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(answer.to_wire(), address)


@contextlib.asynccontextmanager
async def dns_server() -> AsyncIterator[DnsServer]:
    """A server that runs meanwhile."""
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(DnsServer, ("127.0.0.1", 0))
    try:
        yield server
    finally:
        transport.close()
