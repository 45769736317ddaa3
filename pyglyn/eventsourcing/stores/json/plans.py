"""Readers in C of JSON texts, beside the quick functions in Python for the same types. Pure.

A reader gives what the quick function gives for the value of the text, or ``MISFIT``; then that function is
called, and what it refuses is read with care, as ever. So an application's function (a validator, a codec of
its own) may be called again for a text that does not fit. Without ``_reading`` (no compiler, or
``PYGLYN_PURE=1``) there are no readers.
"""

from __future__ import annotations

import contextlib
import importlib
import typing
from collections.abc import Mapping
from types import NoneType
from typing import Any

from pyglyn.etf import IMPLEMENTATION
from pyglyn.eventsourcing.domain.envelope import RecordedEvent, SerializedEventEnvelop
from pyglyn.eventsourcing.stores.json.quick import QuickFunctions, Rules
from pyglyn.eventsourcing.stores.json.text import scan_once
from pyglyn.gleam.annotations import fields_of, is_union, is_value_class, resolved, union_members
from pyglyn.gleam.plans import assigns_only

c: Any = None
if IMPLEMENTATION == "c":
    with contextlib.suppress(ImportError):
        c = importlib.import_module("pyglyn.eventsourcing.stores.json._reading")

MISFIT: object = None if c is None else c.MISFIT


class Readers:
    """The readers of one codec, which call the quick functions for what they do not read themselves."""

    def __init__(self, rules: Rules, quick: QuickFunctions) -> None:
        self._rules = rules
        self._quick = quick
        self._made: dict[Any, Any] = {}
        self._plain = {str: c.TEXT, int: c.INTEGER, float: c.NUMBER, bool: c.TRUTH}

    def reader(self, of: Any) -> Any:
        """Return the reader of a type.

        Raises:
            UnsupportedType: it is one of which there is no quick function.
        """
        of = resolved(of)
        if of in self._rules.own:
            return self._call(of)
        if of in self._plain:
            return _made(self._plain[of])
        if is_value_class(_class(of)):
            return self._record(of)
        if is_union(of):
            return self._union(of)
        arguments = typing.get_args(of)
        if _class(of) is list and arguments:
            return _made(c.ARRAY, nodes=(self.reader(arguments[0]),))
        return self._call(of)

    def tagged(self, tag_key: str, tags: Mapping[str, tuple[Any, bool]]) -> Any:
        """Return the reader of one of some classes, by its tag."""
        nodes = tuple(self._record(of) for of, _ in tags.values())
        return _made(c.TAGGED, tag_key, nodes=nodes, keys=tuple(tags))

    def _call(self, of: Any) -> Any:
        return _made(c.CALL, scan_once, self._quick.reader(of))

    def _union(self, of: Any) -> Any:
        members = [member for member in union_members(of) if member is not NoneType]
        if any(member in self._rules.own for member in members):
            return self._call(of)
        if len(members) == 1:
            inside = self.reader(members[0])
        elif all(is_value_class(_class(member)) for member in members):
            inside = self.tagged(*self._rules.nested_tags(members))
        else:
            return self._call(of)
        return _made(c.OPTION, nodes=(inside,)) if NoneType in union_members(of) else inside

    def _record(self, of: Any) -> Any:
        if of not in self._made:
            made = self._made[of] = c.Reader()  # for a class that is inside itself
            fields = fields_of(of)
            order = sorted(range(len(fields)), key=lambda i: fields[i].keyword)
            made.become(
                c.RECORD,
                _class(of),
                scan_once,
                nodes=tuple(self.reader(field.annotation) for field in fields),
                keys=tuple(self._rules.key(field.name) for field in fields),
                names=tuple(field.name for field in fields),
                order=tuple(order),
                keywords=tuple(fields[i].argument for i in order if fields[i].keyword),
                assigns=assigns_only(_class(of)),
                exact=self._rules.exact,
            )
        return self._made[of]


def _made(kind: int, *what: Any, **more: Any) -> Any:
    reader = c.Reader()
    reader.become(kind, *what, **more)
    return reader


def _class(of: Any) -> Any:
    return typing.get_origin(of) or of


def _of_fields(cls: type) -> Any:
    """Return the reader of a class of ours, which is never given a text: it makes instances."""
    names = tuple(field.name for field in fields_of(cls))
    nodes = tuple(_made(c.TEXT) for _ in names)
    order = tuple(range(len(names)))
    made = c.Reader()
    assigns = assigns_only(cls)
    made.become(c.RECORD, cls, scan_once, nodes=nodes, keys=names, names=names, order=order, assigns=assigns)
    return made


ENVELOPE: Any = None if c is None else _of_fields(SerializedEventEnvelop)
EVENT: Any = None if c is None else _of_fields(RecordedEvent)
