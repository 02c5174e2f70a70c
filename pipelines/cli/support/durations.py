"""Lengths of time on the command line: ``5s``, ``2m``, ``1h30m``; a plain number is seconds."""

from __future__ import annotations

import re

import click

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_PART = r"(\d+(?:\.\d+)?)(ms|s|m|h|d)"


def parse_duration(text: str) -> float:
    """Read a length of time, in seconds.

    Raises:
        ValueError: it is none.

    Example:
        >>> parse_duration("1h30m"), parse_duration("2.5"), parse_duration("250ms")
        (5400.0, 2.5, 0.25)
    """
    told = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", told):
        return float(told)
    if not re.fullmatch(f"(?:{_PART})+", told):
        raise ValueError(f"{text!r} is no length of time; write 5s, 2m, 1h30m, or a number of seconds.")
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(_PART, told))


class Duration(click.ParamType):  # type: ignore[type-arg]
    """An option's value that is a length of time; the command gets seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, or refuse the command line."""
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = Duration()
