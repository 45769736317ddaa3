"""See ``c/plans.c``; the kinds of plans are numbers named as there."""

from typing import Any

MISFIT: object

class Plan:
    def __call__(self, subject: Any, /) -> Any: ...
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
