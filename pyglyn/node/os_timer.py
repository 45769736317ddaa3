"""A timer of the operating system that sends a signal. Layer: node.

Source: timer_create(2), sigevent(3).
"""

from __future__ import annotations

import ctypes
from typing import Final

_CLOCK_MONOTONIC: Final = 1


class _SigEvent(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * 48),
    )


class _TimerSpec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class OsTimer:
    """A timer of the operating system that sends a signal; a fork does not inherit it.

    Raises:
        OSError, AttributeError: there is none.
    """

    def __init__(self, signal_number: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()
        event = _SigEvent(None, signal_number, 0, b"")
        if self._libc.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer)):
            raise OSError(ctypes.get_errno(), "no timer")

    def set(self, seconds: float) -> None:
        """Send the signal in so many seconds, once; 0 for never."""
        spec = _TimerSpec(0, 0, int(seconds), int(seconds % 1 * 1e9))
        self._libc.timer_settime(self._timer, 0, ctypes.byref(spec), None)

    def delete(self) -> None:
        """Send no signal any more."""
        self._libc.timer_delete(self._timer)
