"""Python values to Gleam values and back, derived from their types, on cattrs. Layer: gleam, pure.

An attrs class or a dataclass is a constructor, a union of them a custom type; ``docs/gleam.md`` has the
whole table. What is derived here comes last: a hook that a user registers for a type (cattrs' own
``register_structure_hook`` and its kin) is taken wherever that type occurs, so register it before the
first decoder or encoder of a type that contains it is made.

In a union, a class keeps the place of its constructor: its own hook sees terms with that atom and size only.

Not supported: values nested more deeply than Python recurses (with its default limit some 330 levels of a
recursive type, 200 where each level has a list), which end in a ``GleamError``.
"""

from __future__ import annotations

import datetime
import enum
import threading
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, Final, Generic, TypeVar, overload

import cattrs
from cattrs.dispatch import MultiStrategyDispatch

from pyglyn import etf
from pyglyn.errors import DecodeErrors, Misfit, UnsupportedType, ValueEncodeError
from pyglyn.etf import Limits
from pyglyn.etf.limits import DEFAULT_LIMITS
from pyglyn.etf.terms import Term
from pyglyn.gleam.annotations import is_union, name_of, no_type
from pyglyn.gleam.decoding import decode_hook, errors_of
from pyglyn.gleam.dynamic import Decoder, Errors, Input, too_deep
from pyglyn.gleam.encoding import describe, encode_hook
from pyglyn.gleam.plans import MISFIT, DecodePlanner, EncodePlanner, Plan
from pyglyn.gleam.shapes import shape_of
from pyglyn.gleam.types import Duration, Timestamp

T = TypeVar("T")
Hook = Callable[..., Any]


class _ByClass(enum.Enum):
    BY_CLASS = "by class"


BY_CLASS: Final = _ByClass.BY_CLASS
"""Stands for the type that is not given to ``encode``; ``None`` would be ``Nil``."""


class DerivedDecoder(Decoder[T]):
    """The decoder of a Python type; made by ``gleam.decoder``."""

    __slots__ = ("_expected", "_hook", "_plan")

    def __init__(self, hook: Hook, expected: str, plan: Plan | None) -> None:
        super().__init__(self._run)
        self._hook = hook
        self._expected = expected
        self._plan = plan

    def __repr__(self) -> str:
        return f"gleam.decoder({self._expected})"

    def decode(self, term: Term) -> T:
        """Decode a term.

        Raises:
            DecodeErrors: it does not fit, or is nested too deeply for Python's recursion limit.
        """
        if self._plan is not None and (value := self._plan(term)) is not MISFIT:
            return value  # type: ignore[no-any-return]
        try:
            return self._hook(term)  # type: ignore[no-any-return]
        except DecodeErrors:
            raise
        except Exception as error:
            raise DecodeErrors(self._errors(error, term)) from error

    def decode_bytes(self, data: Input, *, limits: Limits = DEFAULT_LIMITS) -> T:
        plan = self._plan
        if plan is not None and (value := plan.read(data, limits)) is not MISFIT:
            return value  # type: ignore[no-any-return]
        return self.decode(etf.decode(data, limits=limits))

    def decode_bare(self, data: Input, offset: int = 0, *, limits: Limits = DEFAULT_LIMITS) -> T:
        plan = self._plan
        if plan is not None and (value := plan.read_bare(data, offset, limits)) is not MISFIT:
            return value  # type: ignore[no-any-return]
        return self.decode(etf.decode_bare(data, offset, limits=limits)[0])

    def _run(self, term: Term) -> tuple[Any, Errors]:
        if self._plan is not None and (value := self._plan(term)) is not MISFIT:
            return value, ()
        try:
            return self._hook(term), ()
        except Exception as error:
            return None, tuple(self._errors(error, term))

    def _errors(self, error: Exception, term: Term) -> Iterable[Misfit]:
        if isinstance(error, RecursionError):
            return [too_deep(term)]
        return errors_of(error, self._expected, term)


class Encoder(Generic[T]):
    """Turns the values of one Python type into terms; made by ``gleam.encoder``."""

    __slots__ = ("_hook", "_plan", "_type")

    def __init__(self, hook: Hook, type_: object, plan: Plan | None) -> None:
        self._hook = hook
        self._type = type_
        self._plan = plan

    def __repr__(self) -> str:
        return f"gleam.encoder({name_of(self._type)})"

    def encode(self, value: T) -> Term:
        """Encode a value.

        Raises:
            ValueEncodeError: it, or something in it, is not of the declared type.
        """
        if self._plan is not None and (term := self._plan(value)) is not MISFIT:
            return term  # type: ignore[no-any-return]
        return encoded(self._hook, value, self._type)

    def encode_bytes(self, value: T) -> bytes:
        """Encode a value as bytes, version byte first: ``etf.encode(encode(value))``, without the term.

        Raises:
            ValueEncodeError: as ``encode``.
            EncodeError: where any ``Term`` is allowed there is something that is none.
        """
        if self._plan is not None and (data := self._plan.write(value)) is not MISFIT:
            return data  # type: ignore[no-any-return]
        return etf.encode(self.encode(value))


def encoded(hook: Hook, value: object, type_: object) -> Term:
    """Call an encoding function; whatever it raises ends as a ``ValueEncodeError``."""
    try:
        return hook(value)  # type: ignore[no-any-return]
    except (ValueEncodeError, UnsupportedType):
        raise
    except RecursionError:
        raise ValueEncodeError("less deeply nested data", describe(value)) from None
    except Exception as error:
        raise ValueEncodeError(name_of(type_), describe(value)) from error


class Converter(cattrs.Converter):
    """Derives decoders and encoders, and is where hooks for types of your own are registered.

    A structure hook gets the term and the type and returns the value, or raises; an unstructure hook gets
    the value and returns the term.

    Args:
        legacy_names: name constructors as Gleam before 1.11 did (``http_server``, not ``h_t_t_p_server``).
            Only names with acronyms differ. Decoding takes both in any case.
    """

    def __init__(self, *, legacy_names: bool = False) -> None:
        super().__init__(detailed_validation=False)
        self.legacy_names = legacy_names
        self._local = threading.local()
        self._derived_hooks = set[Hook]()
        self._behind = dict[Hook, Hook]()
        derived = self._derived_hooks.__contains__
        self._decode_plans = DecodePlanner(self._structure_hook, derived)
        self._encode_plans = EncodePlanner(
            self.get_unstructure_hook, derived, self._encode_by_class, legacy_names
        )
        # cattrs' own hooks coerce (int("1"), str(b"")), so nothing of them is left: only what users register,
        # and then what is derived.
        self._structure_func = MultiStrategyDispatch(self._derived_structure, self)
        self._structure_func.register_func_list(
            [(self._has_union_hook, lambda union: self._union_struct_registry[union], True)]
        )
        self._unstructure_func = _Dispatch(self._derived_unstructure, self)
        self._unstructure_func.when_changed = self._encode_plans.forget_classes
        self._register_times()

    def _has_union_hook(self, annotation: Any) -> bool:
        return is_union(annotation) and annotation in self._union_struct_registry

    def copy(self, **_: Any) -> Converter:  # type: ignore[override]
        """Make a converter with the same hooks, to register others."""
        made = Converter(legacy_names=self.legacy_names)
        made._union_struct_registry = dict(self._union_struct_registry)
        own = made._structure_func.get_num_fns()
        for old, new, skip in (
            (self._structure_func, made._structure_func, own),
            (self._unstructure_func, made._unstructure_func, 0),
        ):
            pairs = old._function_dispatch._handler_pairs
            new._function_dispatch._handler_pairs[:0] = pairs[: len(pairs) - skip]
            for cls, hook in old._single_dispatch.registry.items():
                new._single_dispatch.register(cls, hook)
            new.clear_cache()
        return made

    # --- making decoders and encoders --------------------------------------------------------------

    @overload
    def decoder(self, type_: type[T]) -> Decoder[T]: ...

    @overload
    def decoder(self, type_: object) -> Decoder[Any]: ...

    def decoder(self, type_: Any) -> Decoder[Any]:
        """Make the decoder of a type; what it does is compiled once per type and converter.

        Raises:
            UnsupportedType: the type has no Gleam counterpart, or an ambiguous one.
        """
        hook = self._compiled(self._decode_lookup, type_)
        return DerivedDecoder(hook, name_of(type_), self._decode_plans.plan(type_))

    @overload
    def encoder(self, type_: type[T]) -> Encoder[T]: ...

    @overload
    def encoder(self, type_: object) -> Encoder[Any]: ...

    def encoder(self, type_: Any) -> Encoder[Any]:
        """Make the encoder of a type; what it does is compiled once per type and converter.

        Raises:
            UnsupportedType: the type has no Gleam counterpart, or an ambiguous one.
        """
        hook = self._compiled(self._encode_lookup, type_)
        return Encoder(hook, type_, self._encode_plans.plan(type_))

    def encode(self, value: object, type_: object = BY_CLASS) -> Term:
        """Encode a value by its class, or by a type where the class alone does not tell.

        The class does not tell what a bare ``None`` or a list of options is, nor what stands for a type
        variable: ``encode(None)`` is ``nil``, ``encode(None, int | None)`` is ``none``.

        Raises:
            ValueEncodeError: it, or something in it, is not of the declared type.
            UnsupportedType: the class or type has no Gleam counterpart.
        """
        by_class = self._encode_plans.by_class
        if type_ is BY_CLASS and by_class is not None and (term := by_class(value)) is not MISFIT:
            return term  # type: ignore[no-any-return]
        kind = type(value) if type_ is BY_CLASS else type_
        hook = self._compiled(self._encode_lookup, kind)
        plan = self._encode_plans.plan(kind, hook)
        if plan is not None and (term := plan(value)) is not MISFIT:
            return term  # type: ignore[no-any-return]
        return encoded(hook, value, kind)

    def encode_bytes(self, value: object, type_: object = BY_CLASS) -> bytes:
        """Encode a value as bytes, version byte first: ``etf.encode(encode(value, type_))`` without the term.

        Raises:
            ValueEncodeError, UnsupportedType: as ``encode``.
            EncodeError: where any ``Term`` is allowed there is something that is none.
        """
        by_class = self._encode_plans.by_class
        if type_ is BY_CLASS and by_class is not None and (data := by_class.write(value)) is not MISFIT:
            return data  # type: ignore[no-any-return]
        return (
            etf.encode(self.encode(value)) if type_ is BY_CLASS else self.encoder(type_).encode_bytes(value)
        )

    def _compiled(self, lookup: Callable[[Any], Hook], type_: Any) -> Hook:
        try:
            return lookup(type_)
        except RecursionError:
            raise UnsupportedType(f"{name_of(type_)} expands without end") from None
        except TypeError as error:
            if isinstance(error, UnsupportedType):
                raise
            raise UnsupportedType(no_type(type_) or f"{name_of(type_)} is not a type: {error}") from error

    # --- between cattrs and the derived functions --------------------------------------------------

    def _decode_lookup(self, annotation: Any) -> Hook:
        cell = self._pending("structure").get(annotation)
        if cell is not None:
            return _later(cell, lambda: self._decode_lookup(annotation))
        hook = self._structure_hook(annotation)
        if type(hook) is FunctionType and hook in self._derived_hooks:
            return hook
        return lambda term: hook(term, annotation)

    def _structure_hook(self, annotation: Any) -> Hook:
        """Give the function for a type: a derived one takes a term alone, a user's the type as well."""
        hook = self.get_structure_hook(annotation)
        return self._behind.get(hook, hook) if type(hook) is FunctionType else hook

    def _encode_lookup(self, annotation: Any) -> Hook:
        cell = self._pending("unstructure").get(annotation)
        if cell is not None:
            return _later(cell, lambda: self._encode_lookup(annotation))
        return self.get_unstructure_hook(annotation)

    def _derived_structure(self, annotation: Any) -> Hook:
        def make() -> Hook:
            return decode_hook(shape_of(annotation), annotation, self._decode_lookup)

        hook = self._derive("structure", annotation, make)
        self._derived_hooks.add(hook)

        def for_cattrs(term: Term, _: object) -> Any:
            return hook(term)

        self._behind[for_cattrs] = hook
        return for_cattrs

    def _derived_unstructure(self, annotation: Any) -> Hook:
        def make() -> Hook:
            shape = shape_of(annotation)
            return encode_hook(
                shape, annotation, self._encode_lookup, self._encode_by_class, self.legacy_names
            )

        hook = self._derive("unstructure", annotation, make)
        if type(hook) is FunctionType:
            self._derived_hooks.add(hook)
        return hook

    def _encode_by_class(self, value: object) -> Term:
        if type(value) is object:
            raise UnsupportedType("object has no Gleam counterpart")
        term: Term = self.get_unstructure_hook(type(value))(value)
        return term

    def _pending(self, kind: str) -> dict[Any, list[Hook]]:
        """Give the types whose functions are being made right now, in this thread: they may recur."""
        pending: dict[Any, list[Hook]] = self._local.__dict__.setdefault(kind, {})
        return pending

    def _derive(self, kind: str, annotation: Any, make: Callable[[], Hook]) -> Hook:
        pending = self._pending(kind)
        cell = pending[annotation] = list[Hook]()
        try:
            cell.append(make())
        except BaseException:
            # functions made meanwhile may refer to this one, which will never be
            self._structure_func.clear_cache()
            self._unstructure_func.clear_cache()
            raise
        finally:
            del pending[annotation]
        return cell[0]

    def _register_times(self) -> None:
        timestamp, duration = self.decoder(Timestamp), self.decoder(Duration)
        self.register_structure_hook(datetime.datetime, lambda term, _: timestamp.decode(term).to_datetime())
        self.register_structure_hook(datetime.timedelta, lambda term, _: duration.decode(term).to_timedelta())
        self.register_unstructure_hook(
            datetime.datetime, lambda moment: self.encode(Timestamp.from_datetime(moment))
        )
        self.register_unstructure_hook(
            datetime.timedelta, lambda span: self.encode(Duration.from_timedelta(span))
        )


class _Dispatch(MultiStrategyDispatch[Any]):
    """cattrs' dispatch, which says that hooks may be others now."""

    when_changed: Callable[[], None] = staticmethod(lambda: None)

    def register_cls_list(self, *args: Any, **kwargs: Any) -> None:
        super().register_cls_list(*args, **kwargs)
        self.when_changed()

    def register_func_list(self, *args: Any, **kwargs: Any) -> None:
        super().register_func_list(*args, **kwargs)
        self.when_changed()

    def clear_cache(self) -> None:
        super().clear_cache()
        self.when_changed()


def _later(cell: list[Hook], again: Callable[[], Hook]) -> Hook:
    """Refer to a function that is still being made.

    Another thread may come by what refers to it before it is there, and makes one for itself.
    """

    def hook(subject: Any) -> Any:
        return (cell[0] if cell else again())(subject)

    return hook


default_converter = Converter()
"""The converter behind ``gleam.decoder``, ``gleam.encoder`` and ``gleam.encode``; register hooks here."""


@overload
def decoder(type_: type[T]) -> Decoder[T]: ...


@overload
def decoder(type_: object) -> Decoder[Any]: ...


def decoder(type_: Any) -> Decoder[Any]:
    """Make the decoder of a type, by the default converter; see ``Converter.decoder``."""
    return default_converter.decoder(type_)


@overload
def encoder(type_: type[T]) -> Encoder[T]: ...


@overload
def encoder(type_: object) -> Encoder[Any]: ...


def encoder(type_: Any) -> Encoder[Any]:
    """Make the encoder of a type, by the default converter; see ``Converter.encoder``."""
    return default_converter.encoder(type_)


def encode(value: object, type_: object = BY_CLASS) -> Term:
    """Encode a value by its class or a type, by the default converter; see ``Converter.encode``."""
    return default_converter.encode(value, type_)


def encode_bytes(value: object, type_: object = BY_CLASS) -> bytes:
    """Encode a value as bytes, by the default converter; see ``Converter.encode_bytes``."""
    return default_converter.encode_bytes(value, type_)


@overload
def as_decoder(type_or_decoder: Decoder[T]) -> Decoder[T]: ...


@overload
def as_decoder(type_or_decoder: type[T]) -> Decoder[T]: ...


@overload
def as_decoder(type_or_decoder: object) -> Decoder[Any]: ...


def as_decoder(type_or_decoder: Any) -> Decoder[Any]:
    """Give a decoder as it is, and for a type its derived one: for whatever takes either."""
    return type_or_decoder if isinstance(type_or_decoder, Decoder) else decoder(type_or_decoder)
