"""Requests to stop: a signal, or several of the same instant, as a supervisor sends them to a process and its group."""

from __future__ import annotations

from signal import SIGINT, SIGTERM

SIGNALS = [(SIGTERM,), (SIGINT,), (SIGINT, SIGTERM), (SIGTERM, SIGINT), (SIGINT, SIGINT)]
