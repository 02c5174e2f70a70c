"""Erasure: ``refold erase`` destroys a subject's keys and renews what holds the data; ``--prove`` searches for it."""
