"""Arrow arrays from Python values, with UUIDs at any depth: Arrow itself fails on those inside a list or a struct."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.types as pt

_UUID_BYTES = pa.binary(16)


def array_of(values: Sequence[Any], dtype: pa.DataType) -> pa.Array:
    """Return an array of Python values.

    Args:
        values: Python values, None for NULL.
        dtype: the type of the array.

    Raises:
        pa.ArrowException: a value does not fit the type.

    Example:
        >>> array_of([[UUID(int=1)], None], pa.list_(pa.uuid())).null_count
        1
    """
    stored = _stored(dtype)
    if stored == dtype:
        return pa.array(values, dtype)
    return pa.array(list(map(_bytes_in, values)), stored).cast(dtype)


def _stored(dtype: pa.DataType) -> pa.DataType:
    """Return the type with bytes in place of UUIDs, at any depth."""
    if dtype == pa.uuid():
        return _UUID_BYTES
    if pt.is_list(dtype):
        return pa.list_(_restored(dtype.value_field))
    if pt.is_struct(dtype):
        return pa.struct([_restored(dtype.field(i)) for i in range(dtype.num_fields)])
    if pt.is_map(dtype):
        return pa.map_(_stored(dtype.key_type), _restored(dtype.item_field))
    return dtype


def _restored(field: pa.Field) -> pa.Field:
    return field.with_type(_stored(field.type))


_CONTAINERS: dict[type, Callable[[Any], Any]] = {
    UUID: lambda value: value.bytes,
    list: lambda value: list(map(_bytes_in, value)),
    tuple: lambda value: tuple(map(_bytes_in, value)),  # an entry of a map
    dict: lambda value: {name: _bytes_in(inner) for name, inner in value.items()},
}


def _bytes_in(value: Any) -> Any:
    convert = _CONTAINERS.get(type(value))
    return convert(value) if convert else value
