"""What ``test_costs.py`` runs under callgrind: each function of the codec in C on each payload, a few times."""

from __future__ import annotations

from pyglyn.etf import Atom, ImproperList, Pid, Reference, Term, _speedups

REPEATED = 3
"""How often each is called; the last call counts, when everything is known that can be."""


def _event(number: int) -> Term:
    item = (Atom("item"), (Atom("product"), b"laptop", b"Gaming Laptop", 20), 1)
    created = (Atom("order_created"), b"order_%05d" % number, [item], 20)
    return (Atom("memory_store_event_envelop"), b"order_%05d" % number, number, created, [])


def _nested(depth: int) -> Term:
    term: Term = 0
    for _ in range(depth):
        term = (term,)
    return term


_CALLER = Pid("inventory@localhost", 101, 0, 1_700_000_000)
_ALIAS = ImproperList(
    (Atom("alias"),), Reference("inventory@localhost", 1_700_000_000, (1 << 17, 1 << 20, 1 << 30))
)

PAYLOADS: dict[str, Term] = {
    "event message": (b"inventory", (Atom("process_events"), b"order_001", [_event(1)])),
    "call": (Atom("$gen_call"), (_CALLER, _ALIAS), Atom("get")),
    "100 envelopes": [_event(number) for number in range(100)],
    "1,000 integers": list(range(1_000, 2_000)),
    "10,000 bytes as a list": [n % 256 for n in range(10_000)],
    "1,000 floats": [n / 7 for n in range(1_000)],
    "map of 1,000 binaries": {b"key%d" % n: b"value%d" % n for n in range(1_000)},
    "1,000 nested tuples": _nested(1_000),
}

FUNCTIONS = ("encode", "decode", "normalise")


def main() -> None:
    """Call them in a fixed order."""
    for payload in PAYLOADS.values():
        data = _speedups.encode(payload)
        for function, argument in (
            (_speedups.encode, payload),
            (_speedups.decode, data),
            (_speedups.normalise, payload),
        ):
            for _ in range(REPEATED):
                function(argument)


if __name__ == "__main__":
    main()
