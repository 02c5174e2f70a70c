"""The identity of Python code: a digest that changes with what the code does, and with nothing else."""
