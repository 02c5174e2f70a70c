# What `from refold import ...` offers. lazy_loader reads this file at run time, type checkers read it too.

__version__: str
