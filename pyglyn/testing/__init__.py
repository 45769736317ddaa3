"""Real Erlang nodes and small aids for tests, for users of pyglyn and for its own suite.

Layer: the top. May import everything; nothing of ours imports it.

The pytest plugin (:mod:`pyglyn.testing.plugin`, found by pytest through its entry point) has the fixtures
``beam``, ``shared_beam``, ``beams``, ``beam_otp``, ``epmd`` and ``epmd_port``. This module has what test code
calls by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyglyn.testing.beam import Beam as Beam
    from pyglyn.testing.beam import BeamDown as BeamDown
    from pyglyn.testing.beam import BeamError as BeamError
    from pyglyn.testing.beam import Beams as Beams
    from pyglyn.testing.epmd import PrivateEpmd as PrivateEpmd
    from pyglyn.testing.epmd import free_port as free_port
    from pyglyn.testing.leaks import count_file_descriptors as count_file_descriptors
    from pyglyn.testing.leaks import count_tasks as count_tasks
    from pyglyn.testing.leaks import no_leaks as no_leaks
    from pyglyn.testing.otp import Otp as Otp
    from pyglyn.testing.otp import find_otps as find_otps
    from pyglyn.testing.otp import otp_versions as otp_versions
    from pyglyn.testing.requirement import REQUIRE_ALL as REQUIRE_ALL
    from pyglyn.testing.requirement import require as require
    from pyglyn.testing.waiting import eventually as eventually

# pytest imports this package in every session, for the plugin's sake; the modules only where they are used.
_MODULE_OF = {
    "Beam": "beam",
    "BeamDown": "beam",
    "BeamError": "beam",
    "Beams": "beam",
    "Otp": "otp",
    "PrivateEpmd": "epmd",
    "REQUIRE_ALL": "requirement",
    "count_file_descriptors": "leaks",
    "count_tasks": "leaks",
    "eventually": "waiting",
    "find_otps": "otp",
    "free_port": "epmd",
    "no_leaks": "leaks",
    "otp_versions": "otp",
    "require": "requirement",
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
