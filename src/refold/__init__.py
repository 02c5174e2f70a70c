"""Event sourcing at data-pipeline scale: an event log in Parquet, replayed into DuckDB read models.

All public names are here; each is imported at its first use, so ``import refold`` takes neither Beam nor DuckDB. The
names and where they come from stand in ``__init__.pyi``; ``refold.testing`` has the test language.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
