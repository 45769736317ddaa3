"""See ``c/plans.c``; the kinds of plans are numbers named as there."""

from typing import Any

MISFIT: object

class Plan:
    def __call__(self, subject: Any, /) -> Any: ...
    def read(self, data: object, limits: object = ..., /) -> Any: ...
    def read_bare(self, data: object, offset: int = ..., limits: object = ..., /) -> Any: ...
    def write(self, value: object, /) -> Any: ...
    def become(
        self,
        kind: int,
        first: object = ...,
        second: object = ...,
        third: object = ...,
        nodes: tuple[Plan, ...] = ...,
        names: tuple[str, ...] = ...,
        order: tuple[int, ...] | None = ...,
        keywords: tuple[str, ...] = ...,
    ) -> None: ...
