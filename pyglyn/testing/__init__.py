"""Real Erlang nodes and small aids for tests, for users of pyglyn and for its own suite.

Layer: the top. May import everything; nothing of ours imports it.

The pytest plugin (:mod:`pyglyn.testing.plugin`, found by pytest through its entry point) has the fixtures
``beam``, ``shared_beam``, ``beams``, ``beam_otp``, ``epmd`` and ``epmd_port``. This module has what test code
calls by name.
"""

from __future__ import annotations

from pyglyn.testing.beam import Beam, BeamDown, BeamError, Beams
from pyglyn.testing.epmd import PrivateEpmd, free_port
from pyglyn.testing.leaks import count_file_descriptors, count_tasks, no_leaks
from pyglyn.testing.otp import Otp, find_otps, otp_versions
from pyglyn.testing.require import REQUIRE_ALL, require
from pyglyn.testing.waiting import eventually

__all__ = [
    "REQUIRE_ALL",
    "Beam",
    "BeamDown",
    "BeamError",
    "Beams",
    "Otp",
    "PrivateEpmd",
    "count_file_descriptors",
    "count_tasks",
    "eventually",
    "find_otps",
    "free_port",
    "no_leaks",
    "otp_versions",
    "require",
]
