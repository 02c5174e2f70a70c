"""The one rule for times: from text, numbers and local times of any format to UTC, in microseconds.

A time has microseconds: finer digits are refused, or cut where the mapping says ``subsecond = "truncate"``. A time
without a zone is a local time of the mapping's ``zone``. When clocks are set back an hour has two meanings, and when
they are set forward an hour has none: both are refused, unless the mapping says what they mean.
"""

from __future__ import annotations

import email.utils
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import ROUND_FLOOR, Context, Decimal
from zoneinfo import ZoneInfo

from refold.pipelines.ingest.mapping import UNITS, ColumnMapping, ValueSource

FAST_DATE = r"(0[1-9]|[1-8]\d|9[0-8])\d\d-\d\d-\d\d"
"""Dates from the year 100 to 9899: in the years beyond, a time's offset may lead out of those that are kept."""

FAST_TIME = rf"{FAST_DATE}[T ]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{{1,6}})?(Z|[+-]\d\d:\d\d)"
"""Texts of which the database makes the same time as this module does."""

_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?\s?([Zz]|UTC|[+-]\d\d(?::?\d\d)?)?)?", re.A
)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.A)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.A)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DIGITS = 6


class TimeRefusedError(ValueError):
    """A time cannot be kept; the text says why, and what to do, or is empty if it is no time at all."""


@dataclass(slots=True)
class LocalTimes:
    """Counts times that have no zone.

    Attributes:
        count: how many were read.
    """

    count: int = 0


def read_time(text: str, mapping: ColumnMapping, source: ValueSource, local: LocalTimes) -> datetime:
    """Read a time from text, and return it in UTC.

    Args:
        text: of the file.
        mapping: has the zone, and what is to become of times that do not fit.
        source: has the unit or format.
        local: counts the time if it has no zone.

    Raises:
        TimeRefusedError: it is no time, or one that cannot be kept.
    """
    text = text.strip()
    try:
        if source.unit != "iso":
            return _since_1970(text, source.unit, mapping)
        found = _formatted(text, source.format) if source.format else _iso(text, mapping)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
        local.count += 1
        return _localised(found, mapping).astimezone(UTC)
    except TimeRefusedError:
        raise
    except (ValueError, OverflowError) as error:
        raise TimeRefusedError("") from error


def read_date(text: str, source: ValueSource) -> date:
    """Read a date from text.

    Raises:
        TimeRefusedError: it is no date.
    """
    try:
        if source.format:
            found = _formatted(text.strip(), source.format)
            if (found.hour, found.minute, found.second, found.microsecond) != (0, 0, 0, 0):
                raise TimeRefusedError("it has a time of the day")
            return found.date()
        if _DATE.fullmatch(text.strip()) is None:
            raise TimeRefusedError(
                'a date is written as 2026-01-05; for others set format = "%d/%m/%Y" or the like in the mapping'
            )
        return date.fromisoformat(text.strip())
    except TimeRefusedError:
        raise
    except (ValueError, OverflowError) as error:
        raise TimeRefusedError("") from error


def _localised(naive: datetime, mapping: ColumnMapping) -> datetime:
    """Return a local time with its zone.

    Raises:
        TimeRefusedError: the clocks of the zone show it twice, or never, and the mapping does not say what it means.
    """
    zone = ZoneInfo(mapping.zone)
    first, second = (naive.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    before, after = first.utcoffset(), second.utcoffset()
    if before is None or after is None or before == after:
        return first
    if before > after:
        if mapping.ambiguous == "error":
            raise TimeRefusedError(
                f'the clocks of {mapping.zone} show it twice; set ambiguous = "earlier" or "later" in the mapping'
            )
        return first if mapping.ambiguous == "earlier" else second
    if mapping.nonexistent == "error":
        raise TimeRefusedError(
            f'the clocks of {mapping.zone} never show it; set nonexistent = "shift" in the mapping, '
            "which adds what the clocks skip"
        )
    return first


def _iso(text: str, mapping: ColumnMapping) -> datetime:
    found = _ISO.fullmatch(text)
    if found is None:
        raise TimeRefusedError(
            'a time is written as 2026-01-05T09:00:00Z; for others set unit, or format = "%d/%m/%Y %H:%M" or the like, '
            "in the mapping"
        )
    year, month, day, hour, minute, second, digits, zone = found.groups()
    return datetime(
        int(year),
        int(month),
        int(day),
        int(hour or 0),
        int(minute or 0),
        int(second or 0),
        _microseconds(digits or "", mapping),
        tzinfo=_offset(zone) if zone else None,
    )


def _microseconds(digits: str, mapping: ColumnMapping) -> int:
    if digits[_DIGITS:].strip("0") and mapping.subsecond == "error":
        raise TimeRefusedError(_TOO_FINE)
    return int(digits[:_DIGITS].ljust(_DIGITS, "0"))


_TOO_FINE = 'it is finer than microseconds; set subsecond = "truncate" in the mapping to cut the digits'


def _offset(text: str) -> timezone:
    if text in ("Z", "z", "UTC"):
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if minutes > 59:
        raise TimeRefusedError("")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if text[0] == "-" else offset)


def _formatted(text: str, format: str) -> datetime:
    if format != "rfc2822":
        return datetime.strptime(text, format)
    try:
        return email.utils.parsedate_to_datetime(text)
    except (TypeError, IndexError) as error:
        raise TimeRefusedError("") from error


def _since_1970(text: str, unit: str, mapping: ColumnMapping) -> datetime:
    if _NUMBER.fullmatch(text) is None:
        raise TimeRefusedError("")
    microseconds = Decimal(text).scaleb(_DIGITS - UNITS[unit], Context(prec=len(text) + 1))  # no digit is rounded
    if microseconds.adjusted() > 18:
        raise TimeRefusedError("")
    whole = microseconds.to_integral_value(rounding=ROUND_FLOOR)
    if whole != microseconds and mapping.subsecond == "error":
        raise TimeRefusedError(_TOO_FINE)
    return _EPOCH + int(whole) * _MICROSECOND
