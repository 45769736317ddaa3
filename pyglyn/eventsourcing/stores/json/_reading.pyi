"""See ``c/reading.c``; the kinds of readers are numbers named as there."""

from typing import Any

MISFIT: object

class Reader:
    def __call__(self, text: object, /) -> Any: ...
    def become(
        self,
        kind: int,
        first: object = ...,
        second: object = ...,
        nodes: tuple[Reader, ...] = ...,
        keys: tuple[str, ...] = ...,
        names: tuple[str, ...] = ...,
        order: tuple[int, ...] = ...,
        keywords: tuple[str, ...] = ...,
        assigns: bool = ...,
        exact: bool = ...,
    ) -> None: ...

def events_of(
    reader: Reader,
    envelope: Reader,
    event: Reader,
    common: list[Any],
    positions: list[Any],
    times: list[Any],
    ids: list[Any],
    sequences: list[Any],
    payloads: list[Any],
    /,
) -> tuple[list[Any], list[int]]: ...
