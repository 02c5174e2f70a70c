"""The table of formats: the command line and the documentation name each of them."""

from __future__ import annotations

from pathlib import Path

import click
import pyarrow as pa
import pytest

from refold.pipelines.cli.ingest import ingest
from refold.pipelines.ingest.checks.value_rules import rule_of
from refold.pipelines.ingest.formats import FORMATS
from refold.pipelines.ingest.sources import inspect
from tests.pipelines.ingest.parcels import PARCELS


def test_the_help_names_every_format() -> None:
    """Help must not import the formats to print their names, so it repeats them."""
    (option,) = (p for p in ingest.params if isinstance(p, click.Option) and p.name == "format")
    assert option.help
    names = option.help.split(";")[0].replace(" or ", ", ").split(", ")
    assert names == list(FORMATS)


def test_no_suffix_means_two_formats() -> None:
    """A file's suffix decides its format."""
    suffixes = [suffix for known in FORMATS.values() for suffix in known.suffixes]
    assert len(suffixes) == len(set(suffixes))


@pytest.mark.parametrize(
    ("name", "text", "format", "cloudevents"),
    [
        ("a.json", "{}", "jsonl", False),
        ("a.ndjson", " [{}]", "json", False),
        ("a.jsonl.gz", '{"specversion": "1.0"}', "jsonl", True),
        ("a.JSON", '[{"specversion": "1.0"}]', "json", True),
        ("a.tsv", "{}", "csv", False),
        ("a.csv.zst", "{}", "csv", False),
        ("a.pq", "{}", "parquet", False),
    ],
)
def test_a_format_is_detected(tmp_path: Path, name: str, text: str, format: str, cloudevents: bool) -> None:
    """By the suffix, without that of a compression; a JSON file by its first characters too."""
    path = tmp_path / name
    path.write_text(text)
    file = inspect(str(path), format=None, report=lambda *_: None)
    assert (file.format, file.cloudevents) == (format, cloudevents)


def test_every_type_of_a_contract_has_one_rule() -> None:
    """A value of a type without a rule could not be checked."""
    for field in PARCELS.registry.schema("Described", 1):
        dtype = field.type.value_type if pa.types.is_list(field.type) else field.type
        if not pa.types.is_struct(dtype):
            assert rule_of(dtype).matches(dtype)
