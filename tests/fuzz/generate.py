"""Random terms of every shape, and their bytes, right and damaged: inputs for ``harness.c``."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from pyglyn.etf import Atom, BitString, Export, ImproperList, Pid, Port, Reference, TermMap, pure
from tests.etf.damage import OLD_FORMS, mutated, seeds

_NODES = ["a@b", "inventory@localhost", "é" * 200 + "@b"]
_ATOMS = ["ok", "", "true_", "alias", "ü", "é" * 255, "\U0001f600" * 255, "x" * 255]


class Terms:
    """Terms from one source of chance, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def term(self, depth: int = 4) -> Any:
        """A term of at most so many levels."""
        rng = self.rng
        if depth and rng.random() < 0.6:
            return rng.choice([self._tuple, self._list, self._improper, self._map, self._deep])(depth - 1)
        return rng.choice(
            [self._integer, self._float, self._atom, self._binary, self._identifier, self._text_like]
        )()

    def _some(self, depth: int) -> list[Any]:
        return [self.term(depth) for _ in range(self.rng.choice((0, 1, 1, 2, 3, 5)))]

    def _tuple(self, depth: int) -> Any:
        wide = self.rng.random() < 0.02
        return (self.term(0),) * self.rng.choice((255, 256, 300)) if wide else tuple(self._some(depth))

    def _list(self, depth: int) -> Any:
        return self._some(depth)

    def _improper(self, depth: int) -> Any:
        tail = self.term(depth)
        if isinstance(tail, (list, ImproperList)):
            tail = (tail,)
        return ImproperList((self.term(depth), *self._some(depth)), tail)

    def _map(self, depth: int) -> Any:
        simple = self.rng.random() < 0.7
        keys = [self.term(0 if simple else depth) for _ in range(self.rng.choice((0, 1, 2, 3, 8)))]
        return TermMap((key, self.term(depth)) for key in keys)

    def _deep(self, depth: int) -> Any:
        term = self.term(depth)
        for _ in range(self.rng.choice((1, 5, 30, 100))):
            term = (term,) if self.rng.random() < 0.5 else [term]
        return term

    def _integer(self) -> Any:
        rng = self.rng
        return rng.choice(
            (rng.randrange(256), rng.randrange(-(1 << 33), 1 << 33), rng.getrandbits(80), -(1 << 2041))
        )

    def _float(self) -> Any:
        return self.rng.choice((0.0, -0.0, 1.0, 1e300, self.rng.random()))

    def _atom(self) -> Any:
        return self.rng.choice(
            (True, False, None, Atom(self.rng.choice(_ATOMS)), Atom(f"a{self.rng.random()}"))
        )

    def _binary(self) -> Any:
        rng = self.rng
        data = rng.randbytes(rng.choice((0, 1, 5, 40, 600)))
        return BitString(data + b"x", rng.randrange(1, 8)) if rng.random() < 0.2 else data

    def _text_like(self) -> Any:
        return [self.rng.randrange(256) for _ in range(self.rng.choice((1, 3, 100)))]

    def _identifier(self) -> Any:
        rng, word = self.rng, self.rng.getrandbits(32)
        node = rng.choice(_NODES)
        return rng.choice(
            (
                Pid(node, word, 1, 2),
                Port(node, word, 2),
                Reference(node, 3, (word,) * rng.randrange(1, 6)),
                Export("lists", rng.choice(_ATOMS), 3),
            )
        )

    def signal(self) -> bytes:
        """What a call brings, as it comes off a connection or a link, or nearly that."""
        rng = self.rng
        node = rng.choice(_NODES)
        pid, ref = (
            Pid(node, rng.getrandbits(32), 1, 2),
            Reference(node, 3, (rng.getrandbits(32),) * rng.choice((1, 3))),
        )
        target = pid if rng.random() < 0.5 else self._atom()
        fields: tuple[Any, ...]
        fields = rng.choice(
            ((19, pid, target, ref), (20, pid, target, ref), (33, pid, ref), (33, pid, ref, ref))
        )
        if rng.random() < 0.2:
            at = rng.randrange(len(fields))
            fields = (*fields[:at], self.term(1), *fields[at + 1 :])
        control = fields if rng.random() < 0.5 else (Atom(node), fields)
        payload = self.term(2) if fields[0] == 33 or rng.random() < 0.2 else None
        return pure.encode_bare(control) + (b"" if payload is None else pure.encode_bare(payload))


def inputs(count: int, seed: int) -> Iterator[bytes]:
    """So many inputs for the harness: a byte for its mode and a term, most of them damaged."""
    terms = Terms(seed)
    rng = terms.rng
    known = [data[1:] for data in (*seeds(), *OLD_FORMS)]
    for _ in range(count):
        data = rng.choice(known) if rng.random() < 0.3 else pure.encode_bare(terms.term())
        if rng.random() < 0.2:
            data = terms.signal()
        for _ in range(rng.choice((0, 1, 1, 3))):
            data = mutated(b"\x83" + data, rng)[1:]
        yield bytes((rng.randrange(256),)) + data
