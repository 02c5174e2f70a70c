"""The test language: ``given(events).when(command).then(events)``, and ``given(events).then_rows(...)``.

It needs no test runner and works in any; see ``docs/how-to/test-a-domain.md``.
"""

from refold.warehouse.testing import FIRST_OCCURRED_AT, Given, Outcome, scenarios

__all__ = ["FIRST_OCCURRED_AT", "Given", "Outcome", "scenarios"]
