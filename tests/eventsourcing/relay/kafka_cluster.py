"""A Kafka cluster of one broker: the one that librdkafka has for tests of clients. Runs as a program of its own.

It is no Kafka, but the other side of the protocol by other people: versions, idempotent producers, headers, offsets.
Prints ``host:port``; a line ``down`` or ``up`` on standard input cuts the broker off, or has it back.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import subprocess
import sys

NAME = ctypes.util.find_library("rdkafka")


class KafkaCluster:
    """The program, started."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.address = self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def tell(self, order: str) -> None:
        """Say ``down`` or ``up``, and wait until it is so."""
        assert self._process.stdin is not None
        print(order, file=self._process.stdin, flush=True)
        assert self._line() == order

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """Serve until standard input ends."""
    assert NAME is not None
    library = ctypes.CDLL(NAME)
    library.rd_kafka_new.restype = ctypes.c_void_p
    library.rd_kafka_new.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    library.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_new.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [ctypes.c_void_p]
    for name in ("rd_kafka_mock_broker_set_down", "rd_kafka_mock_broker_set_up"):
        getattr(library, name).argtypes = [ctypes.c_void_p, ctypes.c_int32]
    cluster = library.rd_kafka_mock_cluster_new(
        library.rd_kafka_new(0, None, ctypes.create_string_buffer(512), 512), 1
    )
    sys.stdout.write(library.rd_kafka_mock_cluster_bootstraps(cluster).decode() + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        getattr(library, f"rd_kafka_mock_broker_set_{line.strip()}")(cluster, 1)
        sys.stdout.write(line)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
