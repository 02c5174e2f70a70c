"""How the command line fails, and where its options and settings may stand."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from refold.event_schemas import ConcurrencyError, UsageError
from refold.pipelines.beam.parsed_options import parse_options
from refold.pipelines.cli.support.invocation import Invocation
from tests.pipelines.cli.running import Call, answer, refold


def test_an_error_of_ours_is_one_paragraph_and_its_exit_code(tmp_path: Path) -> None:
    """An error of refold prints one paragraph, without a traceback and with nothing on stdout."""
    done = refold("status", "--json", folder=tmp_path, code=1)
    assert done.stdout == ""
    [paragraph] = done.stderr.splitlines()
    assert paragraph.startswith("Error: There is no event log at")
    assert "refold demo" in paragraph


def test_debug_shows_where_it_happened(tmp_path: Path) -> None:
    """The traceback comes first; the paragraph and the exit code stay."""
    done = refold("--debug", "status", folder=tmp_path, code=1)
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: There is no event log at")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConcurrencyError("order-1", expected_version=1, actual_version=2), 3, "Load the stream and decide again"),
        (UsageError("Not valid\n   like this."), 2, "Error: Not valid like this."),
        (
            ValueError("odd"),
            1,
            "Error: `refold status` failed with an unexpected ValueError: odd. Run it again with --debug",
        ),
        (ValueError(), 1, "`refold status` failed with an unexpected ValueError. Run it"),
        (OSError(28, "No space left on device", "/srv/x"), 1, "failed: No space left on device: /srv/x. Run it again"),
        (PermissionError(), 1, "failed: PermissionError. Run it again"),
        (
            duckdb.IOException("IO Error: no disk\n\nLINE 1: FROM x\n     ^"),
            1,
            "failed in DuckDB: IO Error: no disk. Run",
        ),
        (duckdb.Error(), 1, "failed in DuckDB: Error. Run"),
        (
            pa.ArrowInvalid("Parquet magic bytes\nnot found."),
            1,
            "on Arrow or Parquet data: Parquet magic bytes not found. Run",
        ),
        (
            RuntimeError("Traceback (most recent call last):\n  x\nKeyError: 'a'\n    ^^^\n"),
            1,
            "RuntimeError: KeyError: 'a'. Run",
        ),
        (KeyboardInterrupt(), 130, "Stopped."),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, message: str, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each error has the exit code of its class; unexpected errors have 1, Ctrl-C has 130."""

    def fail(_: Invocation) -> None:
        raise error

    monkeypatch.setattr(Invocation, "open_log", fail)
    result = call("status", folder=tmp_path, code=code)
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [["nope"], ["status", "--nope"], ["query"], ["events", "tail", "-n", "x"]])
def test_what_click_refuses_is_a_usage_error(arguments: list[str], call: Call, tmp_path: Path) -> None:
    """Exit code 2, with a pointer to the help."""
    assert "--help" in call(*arguments, folder=tmp_path, code=2).stderr


@pytest.mark.parametrize(
    ("runner", "arguments", "message"),
    [
        (None, ["--direct_num_workers=many"], "direct_num_workers"),
        (None, ["--no_such_option=1"], "no option --no_such_option"),
        ("NoSuchRunner", [], "NoSuchRunner"),
        (None, ["--runner=NoSuchRunner"], "NoSuchRunner"),
    ],
)
def test_beams_options_are_checked_before_anything_runs(runner: str | None, arguments: list[str], message: str) -> None:
    """Invalid options are a usage error; Beam would print its usage, or ignore them."""
    with pytest.raises(UsageError, match=message):
        parse_options(runner, arguments)


def test_options_work_before_and_after_the_command(call: Call, made: Path, tmp_path: Path) -> None:
    """An option after the command overrides the same option before it."""
    where = ["--log", str(made / "log"), "--read-models", str(made / "read-models")]
    before = answer(call("--json", *where, "status", folder=tmp_path))
    after = answer(call("--log", "/nowhere", "status", "--json", *where, folder=tmp_path))
    assert before["log"] == after["log"]


def test_a_log_of_another_domain_is_refused(call: Call, made: Path) -> None:
    """Positions of one domain are not valid in another."""
    assert "belongs to domain 'orders'" in call("status", "--domain", "trading", folder=made, code=1).stderr


def test_a_domain_in_the_current_folder_is_found_by_its_path(tmp_path: Path) -> None:
    """A user's own package needs no installation; a settings file further up names it just as well."""
    package = tmp_path / "my_shop"
    package.mkdir()
    (package / "domain.py").write_text(
        "from refold.event_schemas import event\n"
        "from refold.warehouse.declarations.domain import Domain\n"
        "@event(schema_version=1)\n"
        "class DoorOpened:\n"
        "    door: str\n"
        'SHOP = Domain(name="my_shop", events=(DoorOpened,))\n'
    )
    found = answer(refold("schemas", "list", "--json", "--domain", "my_shop.domain:SHOP", folder=tmp_path))
    assert [s["event_type"] for s in found["schemas"]] == ["DoorOpened"]
    (tmp_path / "refold.toml").write_text('domain = "my_shop.domain:SHOP"')
    below = tmp_path / "notes"
    below.mkdir()
    assert answer(refold("--json", "schemas", "list", folder=below)) == found
