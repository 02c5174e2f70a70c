"""SQL of analysts: what is answered, and what cannot leave the sandbox child."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
from fastapi import FastAPI

from refold.event_schemas import UsageError
from refold.pipelines.serving.http.problems import install_handlers
from refold.pipelines.serving.sandbox.query_route import query_router
from refold.pipelines.serving.sandbox.sandbox_pool import (
    QueryBusyError,
    QueryRefusedError,
    QueryTooLargeError,
    QueryTooSlowError,
    Sandbox,
)
from refold.pipelines.serving.sandbox.sandbox_process import QueryLimits
from refold.warehouse.read_models.generations.generations import Generations, open_generations
from tests.warehouse.read_models.published import publish

LIMITS = QueryLimits(seconds=1, rows=100, answer_bytes=100_000, memory_mib=128, processes=1, wait_seconds=20)


def open_sandbox(generations: Generations, limits: QueryLimits = LIMITS) -> Sandbox:
    """Create a sandbox on the newest generation."""

    def newest() -> Any:
        generation = generations.newest()
        assert generation is not None
        return generations.path(generation), generation

    return Sandbox(newest, limits=limits)


@pytest.fixture(scope="module")
def generations(tmp_path_factory: pytest.TempPathFactory) -> Generations:
    """One published generation."""
    folder = tmp_path_factory.mktemp("sandbox")
    generations = open_generations(str(folder / "models"), "shop")
    publish(generations, folder)
    return generations


@pytest.fixture(scope="module")
def sandbox(generations: Generations) -> Iterator[Sandbox]:
    """One sandbox for many queries: side effects of one query would show in the next."""
    with closing(open_sandbox(generations)) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def patient(generations: Generations) -> Iterator[Sandbox]:
    """A sandbox with a long time limit, so that only memory ends a query."""
    with closing(open_sandbox(generations, dataclasses.replace(LIMITS, seconds=30))) as sandbox:
        yield sandbox


def still_well(sandbox: Sandbox) -> bool:
    """Run a query as the next analyst would."""
    return sandbox.query("SELECT shown FROM t").rows == [[1]]


def test_a_query_is_answered(sandbox: Sandbox) -> None:
    """A result has column names, types and its position."""
    answer = sandbox.query("SELECT shown, 'a' AS letter FROM t")
    assert (answer.columns, answer.types, answer.rows) == (["shown", "letter"], ["INTEGER", "VARCHAR"], [[1, "a"]])
    assert (answer.truncated, answer.generation, answer.position) == (False, 1, 10)
    assert answer.last_updated
    assert sandbox.query("EXPLAIN ANALYZE SELECT shown FROM t").columns == ["explain_key", "explain_value"]
    assert sandbox.query("PIVOT t ON shown IN (1) USING count(*)").rows == [[1]]


def test_parameters_are_bound(sandbox: Sandbox) -> None:
    """Parameters are bound by name or by position; a value that looks like SQL is text."""
    hostile = "1'; DROP TABLE t; --"
    assert sandbox.query("SELECT $a || '!' AS x", {"a": hostile}).rows == [[hostile + "!"]]
    assert sandbox.query("SELECT ?::INTEGER + ?", [1, 2]).rows == [[3]]
    assert still_well(sandbox)
    assert sandbox.query("SELECT $a", {"a": 10**30}).rows == [[str(10**30)]]
    for parameters in ({"b": 1}, {"a": 10**60}, {"a": "\ud800"}, [1, 2], {}):
        with pytest.raises(QueryRefusedError):
            sandbox.query("SELECT $a::HUGEINT", parameters)


def test_values_as_json_has_them(sandbox: Sandbox) -> None:
    """Nothing is rounded: decimals and large integers are text; times are RFC 3339 in UTC."""
    answer = sandbox.query(
        "SELECT 12.50::DECIMAL(9, 2), 170141183460469231731687303715884105727::HUGEINT,"
        " '2026-01-01 10:00+02'::TIMESTAMPTZ, DATE '2026-01-01',"
        " '\\xAA\\xBB'::BLOB, NULL, [1, 2], {'a': 1.5::DECIMAL(3, 1)}, MAP {7: 'x'}, 'nan'::DOUBLE"
    )
    [[*first, blob, null, listed, struct, mapped, nan]] = answer.rows
    assert first == ["12.50", str(2**127 - 1), "2026-01-01T08:00:00Z", "2026-01-01"]
    assert (blob, null, listed, struct, mapped, nan) == ("aabb", None, [1, 2], {"a": "1.5"}, {"7": "x"}, None)
    assert sandbox.query("SELECT * FROM test_all_types()").rows


def test_long_answers_are_truncated(sandbox: Sandbox) -> None:
    """A result is truncated at the limit of rows or of bytes, and marked as such."""
    few = sandbox.query("FROM range(100)")
    assert (len(few.rows), few.truncated) == (100, False)
    many = sandbox.query("FROM range(100_000_000_000)")
    assert (len(many.rows), many.truncated) == (100, True)
    wide = sandbox.query("SELECT repeat('x', 40_000) FROM range(10)")
    assert (len(wide.rows), wide.truncated) == (2, True)
    huge = sandbox.query("SELECT repeat('x', 1_000_000)")
    assert (huge.rows, huge.truncated) == ([], True)


REFUSED = [
    *("", ";", "nonsense", "SELECT 1; SELECT 2", "SELECT 1; DROP TABLE t", "FROM nowhere", "SELECT 1 +"),
    *("CREATE TABLE x AS SELECT 1", "CREATE TEMP TABLE x AS SELECT 1", "INSERT INTO t VALUES (2)", "DELETE FROM t"),
    *("UPDATE t SET shown = 2", "DROP TABLE t", "ALTER TABLE t ADD COLUMN x INTEGER", "CREATE MACRO m() AS 1"),
    *("EXPLAIN ANALYZE CREATE TEMP TABLE x AS SELECT 1", "EXPLAIN /* */ ANALYZE DELETE FROM t", "TRUNCATE t"),
    *("BEGIN", "COMMIT", "CHECKPOINT", "VACUUM", "ANALYZE", "PREPARE p AS SELECT 1", "EXECUTE p", "USE memory"),
    *("SET threads = 8", "SET lock_configuration = false", "RESET memory_limit", "SET VARIABLE x = 1"),
    *("PRAGMA enable_external_access = true", "PRAGMA database_list", "CALL pragma_version()", "CALL enable_logging()"),
    *("SET enable_external_access = true", "SET allowed_paths = ['/etc/passwd']", "SET temp_directory = '/tmp'"),
    *("ATTACH '/tmp/other.duckdb'", "ATTACH ':memory:' AS m", "DETACH t", "ATTACH 'https://example.com/x.duckdb'"),
    *("COPY t TO '/tmp/refold-escaped.csv'", "COPY (SELECT 1) TO '/dev/stderr'", "COPY t FROM '/etc/passwd'"),
    *(
        "EXPORT DATABASE '/tmp/refold-escaped'",
        "IMPORT DATABASE '/tmp'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "LOAD '/tmp/x'",
    ),
    *(
        "UPDATE EXTENSIONS",
        "CREATE SECRET (TYPE s3, KEY_ID 'a')",
        "FROM read_csv('/etc/passwd')",
        "FROM glob('/etc/*')",
    ),
    *(
        "FROM read_text('/etc/passwd')",
        "FROM read_blob('/proc/self/environ')",
        "FROM '/etc/passwd'",
        "FROM 'a.parquet'",
    ),
    *(
        "FROM read_text('/proc/self/mem')",
        "FROM read_csv('/dev/stdin')",
        "FROM read_text('/dev/fd/0')",
        "FROM '~/.ssh'",
    ),
    *("FROM read_parquet('https://example.com/a')", "FROM read_json('s3://bucket/a')", "FROM sniff_csv('/etc/passwd')"),
    *("FROM read_duckdb('/tmp/other.duckdb')", "FROM parquet_metadata('/tmp/a')", "FROM read_csv(['/etc/passwd'])"),
    *("FROM query('FROM read_text(''/etc/passwd'')')", "FROM query('CREATE TEMP TABLE x AS SELECT 1')"),
    *("FROM query('SELECT 1; SELECT 2')", "FROM query_table('/etc/passwd')", "FROM query_table(['t', '/etc/passwd'])"),
    "FROM json_execute_serialized_sql(json_serialize_sql('FROM read_text(''/etc/passwd'')'))",
    "SELECT * FROM enable_logging(storage := 'file', storage_path := '/tmp/refold-escaped')",
    *("SELECT getenv('HOME')", "FROM settings", "FROM connection", "FROM sys", "FROM cursor", "SELECT error('stop')"),
    *("FROM arrow_scan(1, 1, 1)", "FROM pandas_scan(1)", "FROM duckdb_extensions()"),
]


def test_anything_but_a_query_is_refused(sandbox: Sandbox) -> None:
    """Writes, settings, files, network, extensions, several statements, deep nesting: nothing happens."""
    for sql in REFUSED:
        with pytest.raises(QueryRefusedError) as caught:
            pytest.fail(f"{sql} was answered: {sandbox.query(sql)}")
        assert "root:" not in str(caught.value), sql
        assert len(str(caught.value)) < 3_000, sql
    assert still_well(sandbox)
    assert not list(Path("/tmp").glob("refold-escaped*"))
    for sql in ("FROM read_text('/etc/passwd')", "FROM read_csv('https://example.com')"):
        # Not only the process, DuckDB too refuses: neither lock depends on the other.
        with pytest.raises(QueryRefusedError, match="disabled by configuration"):
            sandbox.query(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "(" * 5_000,
        "SELECT " + "-".join(["1"] * 20_000),
        "SELECT " + ", ".join(f"1 AS {'c' * 50}{i}" for i in range(3_000)),
        "SELECT " + "CASE WHEN true THEN 1 ELSE " * 3_000 + "1" + " END" * 3_000,
    ],
    ids=["nested", "long", "wide", "cases"],
)
def test_enormous_queries(patient: Sandbox, sql: str) -> None:
    """Enormous queries are rejected, as invalid or for their memory."""
    with pytest.raises((QueryRefusedError, QueryTooLargeError)) as caught:
        patient.query(sql)
    assert len(str(caught.value)) < 3_000
    assert still_well(patient)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT repeat('x', 1_000_000_000)",
        "SELECT repeat('x', 600_000_000) || repeat('y', 600_000_000)",
        "SELECT range(100_000_000)",
        "SELECT list(range) FROM range(1_000_000_000)",
        "SELECT string_agg(repeat('x', 100_000), '') FROM range(100_000)",
        "FROM range(100_000_000) ORDER BY random()",
    ],
)
def test_queries_that_exceed_their_memory(patient: Sandbox, sql: str) -> None:
    """Such queries are stopped, even if DuckDB does not count their memory; the next query is answered."""
    with pytest.raises(QueryTooLargeError, match="128 MiB"):
        patient.query(sql)
    assert still_well(patient)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r) SELECT count(*) FROM r",
        "SELECT count(*) FROM range(10_000_000) a, range(10_000_000) b WHERE a.range * b.range = 7",
        "SELECT levenshtein(repeat('x', 300_000), repeat('y', 300_000))",
        "SELECT sleep_ms(600_000)",
    ],
)
def test_queries_that_do_not_end(sandbox: Sandbox, sql: str) -> None:
    """Such queries are stopped, even if they never check for interruption; the next query is answered."""
    with pytest.raises(QueryTooSlowError, match="1 second"):
        sandbox.query(sql)
    assert still_well(sandbox)


def test_the_process_knows_nothing(monkeypatch: pytest.MonkeyPatch, generations: Generations) -> None:
    """Its environment is empty, so it has no token to reveal; it can open and write no file."""
    monkeypatch.setenv("REFOLD_TOKENS", "a:admin:wq7JpY2Vt0hZ4nUe8sKd1A")
    with closing(open_sandbox(generations)) as fresh:
        assert still_well(fresh)
        [process] = fresh._idle
        environment = Path(f"/proc/{process._process.pid}/environ")
        if environment.exists():
            assert environment.read_bytes() == b"MALLOC_ARENA_MAX=1\0"
            limits = Path(f"/proc/{process._process.pid}/limits").read_text()
            assert [line.split()[-3:-1] for line in limits.splitlines() if "Max file size" in line] == [["0", "0"]]


_ESCAPED = """
import errno, os, socket
from refold.pipelines.serving.sandbox import sandbox_child
sandbox_child._drop_rights(1 << 30)
for attempt in (lambda: open("/etc/passwd"), socket.socket, os.pipe):
    try:
        print(attempt())
    except OSError as error:
        print(error.errno == errno.EMFILE)
"""


def test_rights_are_dropped_permanently() -> None:
    """Code that runs in the process can open no file, socket or pipe."""
    done = subprocess.run([sys.executable, "-c", _ESCAPED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 3


def test_a_process_that_dies_is_replaced(sandbox: Sandbox) -> None:
    """The process is replaced if it ends between queries or during one."""
    assert still_well(sandbox)
    [process] = sandbox._idle
    os.kill(process._process.pid, signal.SIGKILL)
    process._process.wait()
    assert still_well(sandbox)


def test_the_newest_generation_is_queried(tmp_path: Path) -> None:
    """The next query reads the newest generation, and the older file is closed."""
    generations = open_generations(str(tmp_path / "models"), "shop")
    publish(generations, tmp_path)
    with closing(open_sandbox(generations)) as sandbox:
        assert sandbox.query("SELECT shown FROM t").rows == [[1]]
        [older] = sandbox._idle
        publish(generations, tmp_path)
        answer = sandbox.query("SELECT shown FROM t")
        assert (answer.rows, answer.generation, answer.position) == ([[2]], 2, 20)
        assert older._process.poll() is not None


def test_queries_wait_for_one_another(generations: Generations) -> None:
    """While one runs, the next waits for a while and is then refused; later it is answered."""
    newest = generations.newest()
    assert newest is not None
    under_way, go_on = threading.Event(), threading.Event()

    def slow() -> Any:
        under_way.set()
        go_on.wait()
        return generations.path(newest), newest

    limits = QueryLimits(processes=1, wait_seconds=0.01)
    with closing(Sandbox(slow, limits=limits)) as sandbox:
        first = threading.Thread(target=sandbox.query, args=("SELECT 1",))
        first.start()
        under_way.wait()
        with pytest.raises(QueryBusyError):
            sandbox.query("SELECT 1")
        go_on.set()
        first.join()
        assert still_well(sandbox)


def test_no_process_stays_behind(generations: Generations) -> None:
    """Closing stops idle children; a killed server leaves none, since their input ends."""
    sandbox = open_sandbox(generations)
    assert still_well(sandbox)
    [process] = sandbox._idle
    sandbox.close()
    assert process._process.poll() is not None
    with closing(open_sandbox(generations)) as other:
        assert still_well(other)
        [process] = other._idle
        assert process._process.stdin is not None
        process._process.stdin.close()
        assert process._process.wait(timeout=20) == 0


def test_a_process_ends_itself(generations: Generations, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its server the process ends itself, even during a query that never checks for interruption."""
    monkeypatch.setattr("refold.pipelines.serving.sandbox.sandbox_process._ALARM_GRACE_SECONDS", 0.1)
    with closing(open_sandbox(generations, QueryLimits(seconds=0.1))) as sandbox:
        assert still_well(sandbox)
        [process] = sandbox._idle
        assert process._process.stdin is not None
        process._process.stdin.write(b'{"sql": "SELECT sleep_ms(600000)", "parameters": []}\n')
        process._process.stdin.flush()
        assert process._process.wait(timeout=20) == -signal.SIGALRM


def test_limits_that_allow_nothing() -> None:
    """Limits that allow nothing are usage errors."""
    for name in ("seconds", "rows", "memory_mib", "processes"):
        with pytest.raises(UsageError, match=f"{name} is 0"):
            QueryLimits(**{name: 0})


def post(sandbox: Sandbox, document: Any) -> httpx.Response:
    """Send a request over HTTP, in this process."""
    app = FastAPI()
    install_handlers(app)
    app.include_router(query_router(sandbox))

    async def once() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return await client.post("/query", json=document)

    return asyncio.run(once())


def test_over_http(sandbox: Sandbox) -> None:
    """The route responds with rows and their position, and with problem documents."""
    answer = post(sandbox, {"sql": "SELECT shown + $more AS x FROM t", "parameters": {"more": 1}})
    assert answer.status_code == 200
    document = answer.json()
    assert document.pop("seconds") >= 0
    assert document.pop("last_updated")
    assert document == {
        "columns": ["x"],
        "types": ["INTEGER"],
        "data": [[2]],
        "truncated": False,
        "generation": 1,
        "position": 10,
    }
    for sql, status in (
        ("DROP TABLE t", 400),
        ("SELECT sleep_ms(60000)", 408),
        ("SELECT repeat('x', 1000000000)", 413),
    ):
        refused = post(sandbox, {"sql": sql})
        assert (refused.status_code, refused.headers["content-type"]) == (status, "application/problem+json")
    more, nested = {"sql": "SELECT 1", "more": 1}, {"sql": "SELECT 1", "parameters": {"a": {}}}
    documents: list[Any] = [{}, {"sql": 1}, more, nested, []]
    for malformed in documents:
        assert post(sandbox, malformed).status_code == 400


def test_the_published_file_is_unchanged(sandbox: Sandbox, generations: Generations) -> None:
    """After all tests of this module."""
    newest = generations.newest()
    assert newest is not None
    path = generations.path(newest)
    assert path.stat().st_size == newest.bytes
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT shown FROM t").fetchall() == [(1,)]
