"""A published file gives every reader the same answer, whatever the settings of the reader's session."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from refold.event_schemas import ProjectionError, event
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Projection, View
from refold.warehouse.declarations.reducers import latest, total
from refold.warehouse.engine.connections import ANSWER_SETTINGS, connect
from refold.warehouse.read_models import database


@event(schema_version=1)
class Sold:
    """An article was sold."""

    sku: str
    pieces: int
    moment: datetime


SALES = Projection(
    name="sales",
    key={"sku": "VARCHAR"},
    columns={
        "pieces": latest("BIGINT"),
        "sold": total("BIGINT"),
        "moment": latest("TIMESTAMPTZ"),
        "place": latest("STRUCT(city VARCHAR, spot STRUCT(lat DOUBLE))"),
    },
    on={Sold: "SELECT sku, pieces, moment"},
    derived={
        "day": "CAST(moment AT TIME ZONE 'UTC' AS DATE)",
        "half": "sold / 2",
        "each": "sold / nullif(pieces - 3, 0) % CAST(-7 AS DOUBLE)",
        "lat": "place.spot.lat",
        "late": "moment > TIMESTAMPTZ '2026-07-01 00:00:00Z'",
        "is_a": "sku = 'A'",
        "shout": "upper(sku) = 'a'",
        "like_a": "regexp_matches(sku, 'a')",
    },
)
VIEWS = (
    View("by_pieces", "FROM sales ORDER BY pieces"),
    View("most", "FROM sales ORDER BY pieces DESC LIMIT 2"),
    View("every", "SELECT sku, pieces FROM sales ORDER BY ALL"),
    View("ranked", "SELECT sku, row_number() OVER (ORDER BY pieces, sku) AS place FROM sales ORDER BY 2"),
    View("listed", "SELECT list(sku ORDER BY pieces, sku) AS skus FROM sales"),
    View("sorted", "SELECT list_sort([2, NULL, 1], 'ASC', 'NULLS LAST') AS n"),
    View("months", "SELECT date_trunc('month', day) AS m, sum(sold / 2) AS n FROM sales GROUP BY ALL ORDER BY 1"),
    View("moments", "SELECT max(moment) = min(moment) AS same, max(epoch_us(moment)) AS last FROM sales"),
    View("texts", "SELECT lower(sku) AS text, count(*) AS n, max(sku) AS last FROM sales GROUP BY ALL ORDER BY 1"),
    View("joined", "SELECT a.sku FROM sales a JOIN sales b ON a.sku = upper(b.sku) ORDER BY a.sku"),
    View("converted", "SELECT count(*) FILTER (CAST(pieces AS VARCHAR) COLLATE C <> 'x') AS n FROM sales"),
    View("nested", "WITH w AS (FROM sales ORDER BY pieces LIMIT 2) SELECT list(sku ORDER BY sku) AS skus FROM w"),
)
SETTINGS = [
    "SET TimeZone = 'America/New_York'",
    "SET TimeZone = 'Pacific/Kiritimati'",
    "SET default_null_order = 'nulls_first'",
    "SET default_null_order = 'nulls_first_on_asc_last_on_desc'",
    "SET default_order = 'desc'",
    "SET integer_division = true",
    "SET old_implicit_casting = true",
    "SET scalar_subquery_error_on_multiple_rows = false",
    "SET preserve_identifier_case = false",
    "SET default_collation = 'nocase'",
    "SET regex_match_operator_semantics = 'full'",
    "SET legacy_disable_null_type = true",
    "SET ieee_floating_point_ops = false",
    "SET error_on_division_by_zero = false",
    "SET disable_timestamptz_casts = true",
]
NO_ANSWER = """
access_mode active_grammar_extensions allocator_background_threads allocator_bulk_deallocation_flush_threshold
allocator_flush_threshold allow_community_extensions allow_extension_repositories allow_extensions_metadata_mismatch
allow_parser_override_extension allow_persistent_secrets allow_unredacted_secrets allow_unsigned_extensions
allowed_configs allowed_directories allowed_paths approximate_join_order_threshold arrow_large_buffer_size
arrow_lossless_conversion arrow_output_list_view arrow_output_version asof_loop_join_threshold async_threads
auto_checkpoint_skip_wal_threshold autoinstall_extension_repository autoinstall_known_extensions
autoload_known_extensions binary_as_string block_allocator_memory cache_local_files catalog_error_max_schemas
checkpoint_on_detach checkpoint_threshold current_dialect current_transaction_invalidation_policy
custom_extension_repository custom_user_agent debug_checkpoint_scan_sleep_ms default_block_size default_secret_storage
default_transaction_invalidation_policy delim_join_as_cte dialect_compatibility_mode disable_database_invalidation
disable_parquet_prefetching disable_timestamptz_casts disabled_compression_methods disabled_filesystems
disabled_log_types disabled_optimizers duckdb_api dynamic_or_filter_threshold enable_external_access
enable_external_file_cache enable_fsst_vectors enable_geoparquet_conversion enable_http_metadata_cache enable_logging
enable_macro_dependencies enable_optimistic_write enable_optimizer enable_profiling enable_progress_bar
enable_progress_bar_print enable_view_dependencies enabled_log_types errors_as_json experimental_metadata_reuse
explain_output extension_directories extension_repository_directory external_file_cache_local_max_block_size
external_file_cache_remote_max_block_size external_file_cache_remote_min_block_size external_file_cache_request_sizing
external_file_cache_spill external_threads file_search_path force_column_metadata_reuse force_compression fsync_mode
geometry_minimum_shredding_size home_directory http_client_pool_capacity http_proxy http_proxy_password
http_proxy_username ignore_unknown_crs immediate_transaction_mode index_scan_max_count index_scan_percentage
initial_column_segment_size json_geometry_format late_materialization_max_rows legacy_disable_null_type
lock_configuration log_query_path logging_level logging_mode logging_storage max_execution_time max_expression_depth
max_memory max_streaming_buffer_size max_temp_directory_size max_vacuum_tasks memory_limit merge_join_threshold
nested_loop_join_threshold null_order operator_memory_limit order_by_non_integer_literal ordered_aggregate_threshold
pandas_analyze_sample parquet_metadata_cache parquet_prefetch_column_gap partitioned_write_flush_threshold
partitioned_write_max_open_files password perfect_ht_threshold pin_threads pivot_filter_threshold pivot_limit
prefer_range_joins prefetch_all_parquet_files preserve_identifier_case preserve_insertion_order profile_output
profiling_coverage profiling_output profiling_renderer_settings progress_bar_time python_enable_replacements
python_scan_all_frames read_ahead_depth redact_http_logs scalar_subquery_error_on_multiple_rows
scheduler_process_partial schema search_path secret_directory show_behavior standard_vector_size
storage_block_prefetch storage_compatibility_version streaming_buffer_size table_function_identifier_conversion
temp_directory temp_file_encryption threads tracked_metrics user username validate_external_file_cache
variant_minimum_shredding_size wal_autocheckpoint wal_autocheckpoint_entries warnings_as_errors worker_threads
write_buffer_row_group_count write_buffer_row_group_memory_limit zstd_min_string_length
"""
"""The other settings of DuckDB: resources, files, formats, messages, errors, and what is set when a text is parsed."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a database of one table, with its views."""
    path: Path = tmp_path_factory.mktemp("published") / "models.duckdb"
    domain = Domain(name="shop", events=(Sold,), read_models=(SALES,), views=VIEWS)
    with database.open_database(path) as connection:
        database.create_table(connection, SALES, [])
        database.set_fingerprint(connection, SALES, domain, 0)
        connection.executemany(
            "INSERT INTO sales VALUES (?, ?, ?, ?, {'city': 'Ulm', 'spot': {'lat': 48.4}})",
            [
                ("a", 3, 3, datetime(2026, 7, 1, 3, 30, tzinfo=UTC)),
                ("b", None, 1, datetime(2026, 6, 30, 23, 30, tzinfo=UTC)),
                ("c", 1, 5, datetime(2026, 3, 31, 12, 0, tzinfo=UTC)),
                ("A", 4, 7, datetime(2026, 3, 31, 12, 0, tzinfo=UTC)),
            ],
        )
        database.create_views(connection, domain)
        database.finish(connection, domain)
    return path


def answers(path: Path, setting: str) -> dict[str, list[Any]]:
    """Read all tables and views in a session with a setting."""
    with duckdb.connect(str(path), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(setting)
        names = [SALES.name, *(view.name for view in VIEWS)]
        fetched = {name: connection.execute(f"FROM {name}").fetchall() for name in names}
    return {name: [tuple(map(_instant, row)) for row in rows] for name, rows in fetched.items()}


def _instant(value: object) -> object:
    """Return a moment in UTC: its zone is how the session shows it, not what it is."""
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo else value


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_changes_no_answer(published: Path, setting: str) -> None:
    """Order, days and quotients are those of refold in each session."""
    assert answers(published, setting) == answers(published, "SET TimeZone = 'UTC'")


@pytest.mark.parametrize("expression", ["place.city = 'ulm'", "CAST(pieces AS VARCHAR) = 'a'", "nullif('a', 'A')"])
def test_a_derived_column_that_a_setting_changes_is_refused(expression: str) -> None:
    """The message names the setting and what to write."""
    with pytest.raises(ProjectionError, match=r"derived column d: .*default_collation.*COLLATE C"):
        dataclasses.replace(SALES, derived={"d": expression})


@pytest.mark.parametrize(
    "select",
    [
        "SELECT place.city = 'ulm' AS d FROM sales",
        "SELECT place.city, count(*) AS n FROM sales GROUP BY place.city",
        "SELECT list_sort(['B', 'a'], 'ASC', 'NULLS LAST') AS sorted FROM sales",
        "SELECT DISTINCT place FROM sales",
        "SELECT sku FROM sales WHERE 'a' = 'A'",
    ],
)
def test_a_view_that_a_setting_changes_is_refused(select: str) -> None:
    """Text inside a struct has no collation of its own."""
    with pytest.raises(ProjectionError, match=r"View v: .*default_collation.*COLLATE C"):
        Domain(name="shop", events=(Sold,), read_models=(SALES,), views=(View("v", select),))


@pytest.mark.parametrize("divisor", ["sold", "0", "CAST(0 AS BIGINT)", "nullif(sold, 1)", "(sold + 1)"])
@pytest.mark.parametrize(
    "division", ["pieces / {}", "pieces % {}", "mod(pieces, {})", "fmod(pieces, {})", "pieces // {}"]
)
def test_a_division_by_zero_is_refused(division: str, divisor: str) -> None:
    """A session decides what it yields."""
    expression = division.format(divisor)
    with pytest.raises(ProjectionError, match=r"derived column d: .*session .* nullif\(x, 0\)"):
        dataclasses.replace(SALES, derived={"d": expression})
    view = View("v", f"SELECT max({expression}) AS d FROM sales")
    with pytest.raises(ProjectionError, match=r"View v: .* nullif\(x, 0\)"):
        Domain(name="shop", events=(Sold,), read_models=(SALES,), views=(view,))


def test_cursors_have_the_settings_of_refold() -> None:
    """Whatever the defaults of the machine are: a query side reads through cursors."""
    program = (
        "from refold.warehouse.engine.connections import connect as c; print(c().cursor().execute({!r}).fetchone())"
    )
    query = "SELECT current_setting('TimeZone'), CAST(TIMESTAMPTZ '2026-01-01 00:00:00Z' AS VARCHAR)"
    environment = {**os.environ, "TZ": "America/New_York"}
    run = [sys.executable, "-c", program.format(query)]
    found = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == "('UTC', '2026-01-01 00:00:00+00')\n"


def test_each_setting_of_duckdb_was_looked_at() -> None:
    """A newer DuckDB may have another one that changes answers."""
    with connect() as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM duckdb_settings()").fetchall()}
    assert names - ANSWER_SETTINGS.keys() == set(NO_ANSWER.split())


def test_answers_of_refold_are_those_of_a_reader_without_settings() -> None:
    """Where refold sets what changes answers, DuckDB has the same by default, but for the time zone."""
    with connect() as ours, closing(duckdb.connect()) as plain:
        for name in ANSWER_SETTINGS.keys() - {"TimeZone"}:
            assert _setting(ours, name) == _setting(plain, name), name


def _setting(connection: duckdb.DuckDBPyConnection, name: str) -> str:
    [(value,)] = connection.execute(f"SELECT current_setting('{name}')").fetchall()
    return str(value).casefold().replace("ascending", "asc")
