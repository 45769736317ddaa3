"""Gleam values: attrs classes, dataclasses and unions of them to terms and back. Layer: gleam, pure.

Derived from types: ``decoder``, ``encoder``, ``encode``. By hand, after ``gleam/dynamic/decode``: ``decode``.
"""

from __future__ import annotations

from pyglyn.errors import DecodeErrors, GleamError, UnsupportedType, ValueEncodeError
from pyglyn.gleam import decode
from pyglyn.gleam.dynamic import DecodeError, Decoder
from pyglyn.gleam.names import constructor, constructor_name, legacy_constructor_name
from pyglyn.gleam.types import (
    BitArray,
    Duration,
    Error,
    NamedSubject,
    Ok,
    Result,
    Some,
    Subject,
    Timestamp,
)
from pyglyn.gleam.values import (
    Converter,
    Encoder,
    as_decoder,
    decoder,
    default_converter,
    encode,
    encode_bytes,
    encoder,
)

__all__ = [
    "BitArray",
    "Converter",
    "DecodeError",
    "DecodeErrors",
    "Decoder",
    "Duration",
    "Encoder",
    "Error",
    "GleamError",
    "NamedSubject",
    "Ok",
    "Result",
    "Some",
    "Subject",
    "Timestamp",
    "UnsupportedType",
    "ValueEncodeError",
    "as_decoder",
    "constructor",
    "constructor_name",
    "decode",
    "decoder",
    "default_converter",
    "encode",
    "encode_bytes",
    "encoder",
    "legacy_constructor_name",
]
