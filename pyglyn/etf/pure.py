"""The reference codec: the external term format in Python. Layer: etf, pure.

Source: Erlang External Term Format (erts, "ext_dist"). The work is done next door: ``decoder`` and
``encoder`` walk, ``readers`` and ``writers`` know the tags, ``maps`` builds maps. What is in ``c`` does the
same in C and leaves what it does not do, and every error, to the functions here; its results and its errors
have to be the same, fields and text included.

Not supported: the atom cache, LOCAL_EXT, FUN_EXT (see ``tags``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from pyglyn.errors import DecodeError, LimitExceeded, UnknownTag
from pyglyn.etf import tags
from pyglyn.etf.decoder import Walk, read_term
from pyglyn.etf.encoder import write_term
from pyglyn.etf.limits import DEFAULT_LIMITS, Limits
from pyglyn.etf.readers import Buffer, invalid, truncated
from pyglyn.etf.terms import Term
from pyglyn.etf.writers import LARGE_PART, Part

Input: TypeAlias = bytes | bytearray | memoryview
_Read: TypeAlias = Callable[[Buffer, int, Limits], tuple[Term, int]]
_ReadBare: TypeAlias = Callable[..., tuple[Term, int]]

_VERSION = bytes((tags.VERSION,))


# --- decoding --------------------------------------------------------------------------------------


def decode(data: Input, *, limits: Limits = DEFAULT_LIMITS) -> Term:
    """Read one term from the whole input, which begins with the version byte.

    Large binaries in it are copied once, out of the input.

    Raises:
        DecodeError: damaged or incomplete input, bytes after the term, or more than the limits allow.
    """
    term, used = decode_prefix(data, limits=limits)
    if used != _length(data):
        trailing(used, _length(data))
    return term


def trailing(used: int, size: int) -> NoReturn:
    """Refuse an input of which only so many bytes were the term."""
    raise DecodeError(f"{size - used} bytes after the term, at offset {used}", offset=used)


def decode_prefix(data: Input, *, limits: Limits = DEFAULT_LIMITS) -> tuple[Term, int]:
    """Read one term, version byte first, from the beginning of the input: the term and the bytes used.

    Raises:
        DecodeError: as ``decode``, but bytes after the term are left alone.
    """
    return _guarded(_read_prefix, _buffer(data), 1, limits)


def decode_bare(data: Input, offset: int = 0, *, limits: Limits = DEFAULT_LIMITS) -> tuple[Term, int]:
    """Read one term without a version byte, as on a connection: the term and the offset after it.

    Raises:
        DecodeError: damaged or incomplete input, a compressed term, or more than the limits allow.
        ValueError: a negative offset.
    """
    if offset < 0:
        raise ValueError(f"offset {offset} is negative")
    return _guarded(read_term, _buffer(data), offset, limits)


def go_on(
    data: Input, limits: Limits, pos: int, budget: int, funs: int, frames: list[Any]
) -> tuple[Term, int]:
    """Read on where C stopped, see ``Walk.resumed``: to the error, as a rule."""

    def read(source: Buffer, pos: int, limits: Limits) -> tuple[Term, int]:
        return Walk.resumed(source, limits, pos, budget, funs, frames).run()

    return _guarded(read, _buffer(data), pos, limits)


def _length(data: Input) -> int:
    return data.nbytes if isinstance(data, memoryview) else len(data)


def _buffer(data: Input) -> Buffer:
    """Give small inputs as bytes, which are the fastest to read, and large ones uncopied."""
    if type(data) is bytes:
        return data
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"expected bytes, bytearray or memoryview, got {type(data).__name__}")
    view = memoryview(data)
    if view.nbytes < LARGE_PART or not view.c_contiguous:
        return bytes(view)
    return view.cast("B")


def _guarded(read: _Read, source: Buffer, pos: int, limits: Limits) -> tuple[Term, int]:
    """Call ``read``, and leave no view of the caller's memory behind in an error's traceback.

    While one lives, a bytearray cannot be resized, not even by the handler of the error.
    """
    if isinstance(source, bytes):
        return read(source, pos, limits)
    try:
        return read(source, pos, limits)
    except DecodeError as error:
        damage = error.with_traceback(None)
    finally:
        source.release()
    damage.__context__ = None
    raise damage


def _read_prefix(source: Buffer, pos: int, limits: Limits) -> tuple[Term, int]:
    if not len(source):
        raise truncated(source, 0, 1, None)
    if source[0] != tags.VERSION:
        raise UnknownTag(f"expected version byte 131 at offset 0, got {source[0]}", offset=0, tag=source[0])
    if len(source) > 1 and source[1] == tags.COMPRESSED:
        return _decode_compressed(source, limits, decode_bare)
    return read_term(source, pos, limits)


def unpack(data: Input, limits: Limits, read: _ReadBare) -> tuple[Term, int]:
    """Read a compressed term, version byte first; ``read`` reads what is inside.

    Raises:
        DecodeError: as ``decode_prefix``.
    """
    return _guarded(
        lambda source, pos, limits: _decode_compressed(source, limits, read), _buffer(data), 0, limits
    )


def _decode_compressed(data: Buffer, limits: Limits, read: _ReadBare) -> tuple[Term, int]:
    """Read ``131, 80, size:32, zlib``; offsets in errors from inside count from the decompressed start."""
    if len(data) < 6:
        raise truncated(data, 2, 4, tags.COMPRESSED)
    size = int.from_bytes(data[2:6], "big")
    if size > limits.size:
        raise LimitExceeded(
            f"{size} bytes after decompression, {limits.size} allowed", offset=2, tag=tags.COMPRESSED
        )
    plain, used = _decompress(data, size)
    try:
        term, end = read(plain, 0, limits=limits)
    except DecodeError as error:
        text = f"in the compressed term: {error}"
        raise type(error)(text, offset=error.offset, tag=error.tag) from None
    if end != size:
        raise DecodeError(
            f"in the compressed term: {size - end} bytes after the term, at offset {end}", offset=end
        )
    return term, used


def _decompress(data: Buffer, size: int) -> tuple[bytes, int]:
    """Unpack exactly ``size`` bytes, never more; return them and the offset after the zlib stream."""
    import zlib  # compressed terms are rare

    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(memoryview(data)[6:], max(size, 1))
        extra = b"" if unpacker.eof else unpacker.decompress(unpacker.unconsumed_tail, 1)
    except zlib.error as error:
        raise invalid(f"a damaged zlib stream ({error})", 6, tags.COMPRESSED) from None
    if extra or len(plain) > size:
        raise invalid(f"more than the declared {size} bytes", 2, tags.COMPRESSED)
    if not unpacker.eof:
        raise truncated(data, len(data), 1, tags.COMPRESSED)
    if len(plain) < size:
        raise invalid(f"{len(plain)} bytes in place of the declared {size}", 2, tags.COMPRESSED)
    return plain, len(data) - len(unpacker.unused_data)


# --- encoding --------------------------------------------------------------------------------------


def encode(term: object, *, compressed: int = 0) -> bytes:
    """Write one term, version byte first.

    Args:
        term: the term.
        compressed: zlib level 1 to 9, or 0 for none. As in OTP the plain form is used if it is no longer.

    Raises:
        EncodeError: something in it is no term; ``value`` is the innermost offender.
    """
    if not compressed:
        return b"".join((_VERSION, *write_term(term)))
    plain = encode_bare(term)
    import zlib

    packed = zlib.compress(plain, compressed)
    if len(packed) + 5 >= len(plain) or len(plain) > 0xFFFFFFFF:
        return _VERSION + plain
    return b"".join((_VERSION, bytes((tags.COMPRESSED,)), len(plain).to_bytes(4, "big"), packed))


def encode_bare(term: object) -> bytes:
    """Write one term without the version byte, as on a connection."""
    return b"".join(write_term(term))


def encode_parts(term: object) -> list[Part]:
    """Write one term without the version byte, in parts to be sent one after the other.

    Binaries of 64 KiB and more are parts of their own and not copied: ``bytes`` objects, or read-only
    views, whose memory the caller must leave alone until they are sent. Everything else is joined.
    """
    parts = write_term(term)
    if sum(map(len, parts)) < LARGE_PART:
        return [b"".join(parts)]
    grouped: list[Part] = []
    run: list[Part] = []
    for part in parts:
        if len(part) >= LARGE_PART:
            grouped.append(b"".join(run))
            grouped.append(part)
            run = []
        else:
            run.append(part)
    if run:
        grouped.append(b"".join(run))
    return grouped
