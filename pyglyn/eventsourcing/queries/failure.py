"""What happens when a query cannot process an event: try again, then park it or stop. Pure.

The default never drops an event silently: five attempts, then the event is parked with its raw form and the
error, to be looked at and driven again.
"""

from __future__ import annotations

import attrs

from pyglyn.errors import NonPositiveArgument

PARK, STOP = "park", "stop"


@attrs.frozen(kw_only=True)
class FailurePolicy:
    """How often to try again, and what then.

    Attributes:
        retries: how many attempts follow the first one; None for any number.
        first: seconds before the second attempt.
        factor: each wait is so many times the one before.
        longest: seconds a wait has at most.
        then: ``park``: keep the event aside and go on (later events of the same aggregate are kept aside
            too, so that their order stays); ``stop``: stand still until somebody resumes the query.

    Raises:
        NonPositiveArgument: a negative number, or a time of 0.
        ValueError: ``then`` is neither.
    """

    retries: int | None = 5
    first: float = 0.05
    factor: float = 2.0
    longest: float = 10.0
    then: str = PARK

    def __attrs_post_init__(self) -> None:
        if self.retries is not None and self.retries < 0:
            raise NonPositiveArgument(f"retries is 0 or more, got {self.retries}")
        if self.first <= 0 or self.longest <= 0 or self.factor <= 0:
            raise NonPositiveArgument("first, factor and longest have to be more than 0")
        if self.then not in (PARK, STOP):
            raise ValueError(f"then is park or stop, got {self.then!r}")

    def pause(self, attempts: int) -> float | None:
        """Return the seconds to wait after so many failed attempts; None when it is enough."""
        if self.retries is not None and attempts > self.retries:
            return None
        exponent = min(attempts - 1, 60)
        return float(min(self.first * self.factor**exponent, self.longest))
