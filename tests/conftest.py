"""Settings and fixtures for the whole suite. The nodes come from the plugin in `pyglyn.testing.plugin`."""

from __future__ import annotations

import hypothesis

# A loaded machine is slow for reasons that no example is to blame for.
hypothesis.settings.register_profile(
    "pyglyn", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("pyglyn")
