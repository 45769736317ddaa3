"""Plans in C for derived decoders and encoders, beside their functions in Python. Layer: gleam, pure.

A plan gives what the function for the same type gives, or ``MISFIT``; then the function is called, from the
beginning, and alone says what is wrong. So a function of a user's (a hook, a validator) may be called again
for a term that does not fit. A plan also makes a value of an encoded term, and the other way round, with no
term in between (``read``, ``write``); for what does not fit there, a term is made after all. Without
``_plans`` (no compiler, or ``PYGLYN_PURE=1``) there are no plans.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import types
from collections.abc import Callable
from typing import Any, Protocol

import attrs

from pyglyn.etf import IMPLEMENTATION, Limits
from pyglyn.gleam.annotations import Field
from pyglyn.gleam.shapes import (
    NONE,
    SOME,
    AnyTerm,
    AnyValue,
    Constructor,
    DictOf,
    EnumOf,
    ListOf,
    Native,
    Option,
    Shape,
    Text,
    TupleOf,
    UnionOf,
    accepted_types,
    shape_of,
    union_claims,
)

c: Any = None
if IMPLEMENTATION == "c":
    with contextlib.suppress(ImportError):
        c = importlib.import_module("pyglyn.gleam._plans")

MISFIT: object = None if c is None else c.MISFIT

Hook = Callable[..., Any]


class Plan(Protocol):
    """``_plans.Plan``: each gives ``MISFIT`` for what does not fit, whatever the reason."""

    def __call__(self, subject: Any, /) -> Any: ...
    def read(self, data: object, limits: Limits, /) -> Any: ...
    def read_bare(self, data: object, offset: int, limits: Limits, /) -> Any: ...
    def write(self, value: object, /) -> Any: ...


def assigns_only(cls: type) -> bool:
    """Tell whether making an instance is no more than setting its fields to the arguments.

    So it is for attrs classes and dataclasses whose ``__init__`` was generated, without validators,
    converters, fields that are no arguments, and functions to be called before or after it.
    """
    init = cls.__dict__.get("__init__")
    new: Any = cls.__new__
    call: Any = type(cls).__call__
    if new is not object.__new__ or call is not type.__call__ or inspect.isabstract(cls):
        return False
    if not isinstance(init, types.FunctionType):
        return False
    code = init.__code__
    if "__attrs_attrs__" in cls.__dict__:
        return (
            code.co_filename.startswith("<attrs generated ")
            and not {"_attrs_cached_hash", "__attrs_pre_init__", "__attrs_post_init__"} & _words(code)
            and all(field.init and not field.validator and not field.converter for field in attrs.fields(cls))
        )
    if "__dataclass_fields__" in cls.__dict__:
        fields = cls.__dict__["__dataclass_fields__"].values()
        return (
            code.co_filename == "<string>"
            and not hasattr(cls, "__post_init__")
            and all(field.init for field in fields)
            and len(dataclasses.fields(cls)) == len(fields)
        )
    return False


def _attribute(cls: type, name: str) -> object:
    return getattr(cls, name)


def _words(code: types.CodeType) -> set[object]:
    return {*code.co_names, *code.co_consts}


class Planner:
    """Makes the plans for one direction; each is kept by the function in Python that it stands beside.

    Args:
        hook_of: gives that function for a type.
        derived: says whether it is one of ours; others are called as they are.
    """

    def __init__(self, hook_of: Callable[[Any], Hook], derived: Callable[[Hook], bool]) -> None:
        self._hook_of = hook_of
        self._derived = derived
        self._plans: dict[Hook, Any] = {}

    def plan(self, annotation: Any, hook: Hook | None = None) -> Plan | None:
        """Give the plan of a type for which there is a function already; None where there are no plans."""
        return None if c is None else self._plan(annotation, hook)

    def _plan(self, annotation: Any, hook: Hook | None = None) -> Any:
        if hook is None:
            hook = self._hook_of(annotation)
        if not self._derived(hook):
            return self._foreign(hook, annotation)
        made = self._plans.get(hook)
        if made is None:
            made = self._plans[hook] = c.Plan()
            try:
                self._fill(made, shape_of(annotation), hook)
            except BaseException:
                del self._plans[hook]
                raise
        return made

    def _foreign(self, hook: Hook, annotation: Any) -> Any:
        """Give the plan that calls a function which is not ours."""
        raise NotImplementedError

    def _fill(self, plan: Any, shape: Shape, hook: Hook) -> None:
        raise NotImplementedError

    def _nodes(self, *annotations: Any) -> tuple[Any, ...]:
        return tuple(map(self._plan, annotations))


class DecodePlanner(Planner):
    """Plans from terms to values."""

    def _foreign(self, hook: Hook, annotation: Any) -> Any:
        return _made(c.CALL, lambda term: hook(term, annotation))

    def _fill(self, plan: Any, shape: Shape, hook: Hook) -> None:
        match shape:
            case Native(kind):
                plan.become(c.NATIVE, kind)
            case Text():
                plan.become(c.TEXT_IN)
            case AnyTerm() | AnyValue():
                plan.become(c.AS_IT_IS)
            case ListOf(element):
                plan.become(c.LIST, nodes=self._nodes(element))
            case DictOf(key, value):
                plan.become(c.DICT_IN, nodes=self._nodes(key, value))
            case TupleOf(elements) if elements is not None:
                plan.become(c.TUPLE, nodes=self._nodes(*elements))
            case Option(inner):
                plan.become(c.OPTION_IN, NONE, SOME, nodes=self._nodes(inner))
            case UnionOf(members):
                self._fill_union(plan, members)
            case EnumOf(_, atoms):
                known: dict[Any, Any] = {legacy: member for member, (_, legacy) in atoms.items()}
                plan.become(c.ENUM_IN, known | {atom: member for member, (atom, _) in atoms.items()})
            case Constructor(cls, atom, legacy, fields):
                nodes = self._nodes(*(field.annotation for field in fields))
                plan.become(c.CLASS_IN, cls, atom, legacy, nodes=nodes, **_arguments(cls, fields))
            case _:
                plan.become(c.CALL, hook)

    def _fill_union(self, plan: Any, members: tuple[Any, ...]) -> None:
        nothing = _made(c.CALL, lambda term: None)
        nodes = {member: nothing if member is types.NoneType else self._plan(member) for member in members}
        bare: dict[Any, Any] = {}
        tagged: dict[Any, dict[int, Any]] = {}
        kinds: dict[type, Any] = {}
        for claim, member in union_claims(members).items():
            if not isinstance(claim, tuple):
                kinds[claim] = nodes[member]
            elif claim[1] == 0:
                bare[claim[0]] = nodes[member]
            else:
                tagged.setdefault(claim[0], {})[claim[1]] = nodes[member]
        plan.become(c.UNION_IN, bare, tagged, kinds)


def _arguments(cls: type, fields: tuple[Field, ...]) -> dict[str, Any]:
    """Say how an instance gets its fields: by assignment, or as arguments, those by keyword last."""
    names = tuple(field.name for field in fields)
    if assigns_only(cls):
        return {"names": names}
    order = sorted(range(len(fields)), key=lambda i: fields[i].keyword)
    keywords = tuple(fields[i].argument for i in order if fields[i].keyword)
    return {"names": names, "order": tuple(order), "keywords": keywords}


class EncodePlanner(Planner):
    """Plans from values to terms.

    Args:
        by_class: the function that encodes a value of which only its class is known.
        legacy_names: as for ``encode_hook``.
    """

    def __init__(
        self,
        hook_of: Callable[[Any], Hook],
        derived: Callable[[Hook], bool],
        by_class: Hook,
        legacy_names: bool,
    ) -> None:
        super().__init__(hook_of, derived)
        self._legacy_names = legacy_names
        self._by_class = by_class
        self._classes: dict[type, Any] = {}
        self.by_class: Any = None if c is None else c.Plan()
        """The plan for a value of which only its class is known."""
        if self.by_class is not None:
            self.by_class.become(c.BY_CLASS, self._classes, self._class_met)

    def forget_classes(self) -> None:
        """Look at the hooks of each class anew, as others were registered."""
        self._classes.clear()

    def _class_met(self, cls: type) -> Any:
        if cls is object:
            return None
        made = self._plan(cls)
        self._classes[cls] = made
        return made

    def _foreign(self, hook: Hook, annotation: Any) -> Any:
        return self.by_class if hook == self._by_class else _made(c.CALL, hook)

    def _fill(self, plan: Any, shape: Shape, hook: Hook) -> None:
        match shape:
            case Native(kind) if kind is float:
                plan.become(c.FLOAT_OUT)
            case Native(kind):
                plan.become(c.NATIVE, kind)
            case Text():
                plan.become(c.TEXT_OUT)
            case AnyTerm():
                plan.become(c.AS_IT_IS)
            case ListOf(element):
                plan.become(c.LIST, nodes=self._nodes(element))
            case TupleOf(elements) if elements is not None:
                plan.become(c.TUPLE, nodes=self._nodes(*elements))
            case Option(inner):
                plan.become(c.OPTION_OUT, NONE, SOME, nodes=self._nodes(inner))
            case UnionOf(members):
                nothing = _made(c.CALL, lambda value: NONE)
                nodes: dict[type, Any] = {}
                for member in members:
                    node = nothing if member is types.NoneType else self._plan(member)
                    nodes |= dict.fromkeys(accepted_types(member), node)
                plan.become(c.UNION_OUT, nodes)
            case Constructor(cls, atom, legacy, fields):
                plan.become(
                    c.CLASS_OUT,
                    cls,
                    legacy if self._legacy_names else atom,
                    nodes=self._nodes(*(field.annotation for field in fields)),
                    names=tuple(field.name for field in fields),
                )
            case _:
                plan.become(c.CALL, hook)


def _made(kind: int, first: Any) -> Any:
    plan = c.Plan()
    plan.become(kind, first)
    return plan
