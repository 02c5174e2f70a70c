"""What all tests share: one Hypothesis profile.

``REFOLD_HYPOTHESIS_EXAMPLES=2000 pytest tests/properties`` runs more examples.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "refold",
    deadline=None,  # the machines that run the tests are noisy
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
settings.load_profile("refold")
