"""Record what ``term_to_binary`` gives on every OTP found: ``python -m tests.etf.make_golden``.

Writes `golden.json`: the OTP and erts versions, and for each of them expression -> bytes in hexadecimal;
long ones compressed, so that the file stays small.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import tempfile
import zlib
from pathlib import Path

import attrs

from pyglyn.etf import decode
from pyglyn.testing import Beam, find_otps
from tests.etf.golden_terms import GOLDEN, OPAQUE

GOLDEN_FILE = Path(__file__).with_name("golden.json")
_LONG = 400


def packed(data: bytes) -> str:
    """Write bytes as text: hexadecimal, or ``z:`` and compressed base64."""
    if len(data) <= _LONG:
        return data.hex()
    return "z:" + base64.b64encode(zlib.compress(data, 9)).decode()


def unpacked(text: str) -> bytes:
    """Read what `packed` wrote."""
    return zlib.decompress(base64.b64decode(text[2:])) if text.startswith("z:") else bytes.fromhex(text)


@attrs.frozen
class Recorded:
    """What one OTP gave: name or expression -> bytes."""

    otp: int
    erts: str
    opaque: dict[str, bytes]
    terms: dict[str, bytes]


@functools.cache
def recorded() -> list[Recorded]:
    """Read `golden.json`, the lowest OTP first."""
    return [
        Recorded(
            entry["otp"],
            entry["erts"],
            {name: unpacked(text) for name, text in entry["opaque"].items()},
            {name: unpacked(text) for name, text in entry["terms"].items()},
        )
        for entry in json.loads(GOLDEN_FILE.read_text())
    ]


async def _bytes_of(beam: Beam, expression: str) -> str:
    """The driver answers with a term, so the bytes of the binary come inside one more encoding."""
    value = decode(await beam.eval_bytes(expression))
    assert isinstance(value, bytes)
    return packed(value)


async def _record(beam: Beam) -> dict[str, object]:
    version = decode(await beam.eval_bytes("list_to_binary(erlang:system_info(version))"))
    opaque = {
        name: await _bytes_of(beam, f"term_to_binary({text}, [{{minor_version, 2}}])")
        for name, text in OPAQUE.items()
    }
    known = {golden.erlang: await _bytes_of(beam, golden.expression()) for golden in GOLDEN}
    assert isinstance(version, bytes)
    return {"otp": beam.otp, "erts": version.decode(), "opaque": opaque, "terms": known}


async def main() -> None:
    """Start one node per OTP, without distribution, and write the file."""
    recorded = []
    with tempfile.TemporaryDirectory() as home:
        for otp in find_otps():
            beam = Beam(
                "golden@localhost", otp=otp, cookie="", epmd_port=0, home=Path(home), distributed=False
            )
            try:
                await asyncio.to_thread(beam.wait_started)
                recorded.append(await _record(beam))
            finally:
                beam.kill()
    GOLDEN_FILE.write_text(json.dumps(recorded, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
