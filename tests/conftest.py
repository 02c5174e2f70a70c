"""What all tests share: one Hypothesis profile, and a Ctrl-C that reaches the processes that they start.

``REFOLD_HYPOTHESIS_EXAMPLES=2000 pytest tests/properties`` runs more examples.
"""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

settings.register_profile(
    "refold",
    deadline=None,  # the machines that run the tests are noisy
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
settings.load_profile("refold")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell without job control starts background jobs so. Tests interrupt processes, which would inherit this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
