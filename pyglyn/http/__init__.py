"""A node over HTTP: ``/livez``, ``/readyz`` and ``/metrics`` for programs, a page for people. Layer: http.

Off unless asked for (``pyglyn node --http HOST:PORT``, or `serve`), and in the extra ``pyglyn[http]``. It
listens in the node's own OS process. The page wants a token (see ``pages``), the others know no password:
bind it to loopback, or to a network that only those who may look can reach. Further routes are a function of
the node that returns aiohttp's ``RouteDef``s.
"""

from pyglyn.http.observer import Observer
from pyglyn.http.server import HttpServer, Routes, address_of, serve

__all__ = ["HttpServer", "Observer", "Routes", "address_of", "serve"]
