"""The distribution protocol without sockets: bytes in, events out. Layer: dist, pure."""
