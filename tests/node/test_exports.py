"""What can be exported, and what is said of annotations that name what is not there."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import attrs
import pytest

from pyglyn.errors import UnsupportedType
from pyglyn.etf import Atom, Term
from pyglyn.node import Exports, Node
from tests.node.conftest import unique_name

if TYPE_CHECKING:
    from decimal import Decimal

    from pyglyn import Process

EXPORTS = Exports()


async def buy(order: Order) -> int:
    return order.quantity


EXPORTS.add("shop", buy)


@attrs.frozen
class Order:
    """Defined below the function that takes it."""

    quantity: int


async def who(me: Process, suffix: str) -> str:
    return me.node + suffix


async def priced(rate: int, quantity: int, *, discount: int = 0) -> int:
    return rate * quantity - discount


class Doubling:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    async def __call__(self, quantity: int) -> int:
        return self.factor * quantity

    def method(self, quantity: int) -> int:
        return self.factor * quantity


async def paid(price: Decimal) -> None: ...


def exporting(function: object, name: str | None = None) -> Exports:
    exports = Exports()
    exports.add("shop", function, name)  # type: ignore[arg-type]
    return exports


@pytest.mark.parametrize(
    ("exports", "args", "result"),
    [
        (EXPORTS, [(Atom("order"), 3)], 3),
        (exporting(who, "f"), [b"!"], None),
        (exporting(functools.partial(priced, 3), "f"), [2], 6),
        (exporting(functools.partial(functools.partial(priced, discount=1), 3), "f"), [2], 5),
        (exporting(Doubling(2), "f"), [4], 8),
        (exporting(Doubling(2).method, "f"), [4], 8),
    ],
    ids=["defined below", "Process for type checking", "partial", "partial of a partial", "object", "method"],
)
async def test_what_is_exported_is_called_with_decoded_arguments(epmd, exports, args, result):
    [(_, name)] = exports
    async with Node(unique_name(), cookie="c", exports=exports) as node:
        expected: Term = f"{node.name}!".encode() if result is None else result
        assert await node.erpc(node.name, "shop", name, args) == expected
        with pytest.raises(Exception, match="badarg"):
            await node.erpc(node.name, "shop", name, [1.5])


async def test_a_node_does_not_start_with_an_annotation_that_names_nothing(epmd):
    def local() -> Exports:
        @attrs.frozen
        class Local: ...

        async def take(value: Local) -> None: ...

        return exporting(take)

    for exports, words in (
        (exporting(paid), ("shop:paid", "test_exports.paid", "'Decimal'")),
        (exporting(functools.partial(paid), "pay"), ("shop:pay ", "test_exports.paid", "'Decimal'")),
        (local(), ("shop:take", "<locals>.take", "'Local'")),
    ):
        with pytest.raises(UnsupportedType) as refused:
            await Node(unique_name(), cookie="c", exports=exports).start_node()
        assert all(word in str(refused.value) for word in words), refused.value


def test_what_has_no_name_needs_one():
    for nameless in (functools.partial(priced, 3), Doubling(2)):
        with pytest.raises(TypeError, match=r"export\(\'shop\', …\)"):
            exporting(nameless)


def test_keywords_cannot_come_over_the_wire():
    async def needs(*, discount: int) -> None: ...

    async def any_number(*orders: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    for function in (needs, any_number):
        with pytest.raises(TypeError, match="positional"):
            exporting(function)
