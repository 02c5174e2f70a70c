"""Durations on the command line: ``5s``, ``2m``, ``1h30m``; a plain number is seconds."""

from __future__ import annotations

import re

import click

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_PART = r"(\d+(?:\.\d+)?)(ms|s|m|h|d)"


def parse_duration(text: str) -> float:
    """Parse a duration into seconds.

    Raises:
        ValueError: the text is no duration.

    Example:
        >>> parse_duration("1h30m"), parse_duration("2.5"), parse_duration("250ms")
        (5400.0, 2.5, 0.25)
    """
    lowered = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", lowered):
        return float(lowered)
    if not re.fullmatch(f"(?:{_PART})+", lowered):
        raise ValueError(f"{text!r} is no duration; write 5s, 2m, 1h30m, or a number of seconds.")
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(_PART, lowered))


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A duration as an option's value; the command gets seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse the value, or end with a usage error."""
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = Duration()
