"""The identity of Python code: a digest that changes with what the code does, and with nothing else."""

from refold.warehouse.declarations.code_identity.identity import CodeIdentity, checked_digest, code_identity

__all__ = ["CodeIdentity", "checked_digest", "code_identity"]
