"""Capability flags: the numbers real nodes use, and what may be missing."""

from __future__ import annotations

from pyglyn.dist import MANDATORY_25, MANDATORY_26, RECOMMENDED, DistFlags
from pyglyn.dist.flags import expand, missing, names

OTP_25_OFFERS = 0xD07DF7FBC
OTP_28_OFFERS = 0x2D07DF7FBC


def test_the_mandatory_sets_are_those_real_nodes_enforce() -> None:
    """Found by leaving out one bit at a time against OTP 25 and 28."""
    assert MANDATORY_25 == 0x1070F94
    assert MANDATORY_26 == 0x403070F94


def test_we_offer_what_otp_offers_without_the_atom_cache() -> None:
    assert RECOMMENDED == OTP_25_OFFERS & ~DistFlags.DIST_HDR_ATOM_CACHE
    assert RECOMMENDED == OTP_28_OFFERS & ~DistFlags.DIST_HDR_ATOM_CACHE & ~DistFlags.ALTACT_SIG


def test_the_digest_bit_stands_for_all_that_otp_25_requires() -> None:
    """0x406000000 alone is accepted by OTP 25 and 28."""
    assert missing(expand(0x406000000), MANDATORY_26) == ()
    assert missing(expand(0x402000000), MANDATORY_26) == names(MANDATORY_25)


def test_missing_flags_are_named_as_otp_names_them() -> None:
    assert missing(RECOMMENDED & ~DistFlags.MAP_TAG & ~DistFlags.V4_NC, MANDATORY_26) == ("MAP_TAG", "V4_NC")


def test_bits_without_a_name_are_dropped() -> None:
    assert expand(1 << 63 | 0x8000000 | DistFlags.SPAWN) == DistFlags.SPAWN
