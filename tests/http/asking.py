"""A client that needs no library: one request, one connection."""

from __future__ import annotations

import asyncio


async def get(port: int, path: str, host: str = "127.0.0.1", called: str = "") -> tuple[int, str]:
    """Ask a server for a path, by another name than its address if one is given; status and body."""
    reader, writer = await asyncio.open_connection(host, port)
    called = called or f"{host}:{port}"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {called}\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body
