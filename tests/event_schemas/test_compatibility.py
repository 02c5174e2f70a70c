"""Schema compatibility: every kind of change has a verdict and a reason, and the commands report it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from refold.event_schemas import (
    UsageError,
)
from refold.event_schemas.compatibility import (
    Compatibility,
    Mode,
    Verdict,
    compare,
)
from refold.event_schemas.lock import (
    Field,
    FieldType,
    Lock,
    LockedSchema,
    Step,
)
from refold.pipelines.cli.main import cli

ROOT = Path(__file__).parents[2]


def field(name: str, type_: str = "string", *, nullable: bool = False) -> Field:
    """Make a field."""
    return Field(name, FieldType(type_), nullable)


def struct(*fields: Field) -> FieldType:
    """Make a nested type."""
    return FieldType("struct", fields)


def shop(*versions: tuple[Field, ...], upcast: bool = True) -> Lock:
    """Lock one event type with these versions, and an upcaster from each to the next."""
    last = len(versions)
    steps = [
        Step(f"to_{n + 1}", "sql", (("Sold", n + 1),)) if upcast and n < last else None for n in range(1, last + 1)
    ]
    return Lock(
        "shop", {("Sold", n): LockedSchema(f, s) for n, (f, s) in enumerate(zip(versions, steps, strict=True), 1)}
    )


def bumped(before: tuple[Field, ...], after: tuple[Field, ...]) -> Compatibility:
    """Compare before and after a correct change: a new version, and an upcaster to it."""
    return compare(shop(before), shop(before, after))


SKU = field("sku")
LINES = FieldType("list", (Field("element", struct(SKU, field("quantity", "int32")), nullable=False),))
LONGER = FieldType("list", (Field("element", struct(SKU, field("quantity", "int64")), nullable=False),))

CHANGES: dict[str, tuple[tuple[Field, ...], tuple[Field, ...], dict[str, str], Verdict]] = {
    "nothing": ((SKU,), (SKU,), {}, Verdict.FULL),
    "another order": ((SKU, field("at")), (field("at"), SKU), {}, Verdict.FULL),
    "added optional": ((SKU,), (SKU, field("note", nullable=True)), {"note": "added optional"}, Verdict.FULL),
    "added required": ((SKU,), (SKU, field("note")), {"note": "added required"}, Verdict.FULL),
    "removed optional": ((SKU, field("note", nullable=True)), (SKU,), {"note": "removed"}, Verdict.FULL),
    "removed required": ((SKU, field("note")), (SKU,), {"note": "removed"}, Verdict.BACKWARD),
    "renamed": ((SKU,), (field("article"),), {"article": "added required", "sku": "removed"}, Verdict.BACKWARD),
    "made optional": ((SKU,), (field("sku", nullable=True),), {"sku": "made optional"}, Verdict.BACKWARD),
    "made required": ((field("sku", nullable=True),), (SKU,), {"sku": "made required"}, Verdict.FULL),
    "nested": (
        (Field("l", LINES, nullable=True),),
        (Field("l", LONGER, nullable=True),),
        {"l[].quantity": "retyped widened"},
        Verdict.BACKWARD,
    ),
    "nested no more": (
        (Field("l", LINES, nullable=True),),
        (field("l", nullable=True),),
        {"l": "retyped"},
        Verdict.BACKWARD,
    ),
    "in a struct": (
        (Field("a", struct(SKU, field("n", nullable=True)), nullable=False),),
        (Field("a", struct(SKU), nullable=False),),
        {"a.n": "removed"},
        Verdict.FULL,
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_with_a_new_version_and_an_upcaster(change: str) -> None:
    """A change with an upcaster is backward compatible; forward compatibility depends on each field."""
    before, after, reasons, verdict = CHANGES[change]
    found = bumped(before, after)
    assert {r.where: r.what for r in found.event_types[0].reasons} == reasons
    assert (found.verdict, found.errors) == (verdict, ())
    assert found.meets(Mode.BACKWARD)
    assert found.meets(Mode.FORWARD) is found.meets(Mode.FULL) is (verdict is Verdict.FULL)
    assert all("upcaster to_2 converts v1 to Sold v2" in r.text for r in found.event_types[0].reasons)


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        ("int32", "int64"),
        ("uint8", "int16"),
        ("uint8", "uint16"),
        ("float", "double"),
        ("decimal128(18, 2)", "decimal128(20, 4)"),
        ("decimal128(18, 2)", "decimal128(19, 2)"),
        ("int64", "decimal128(38, 0)"),
        ("timestamp[ms, tz=UTC]", "timestamp[us, tz=UTC]"),
    ],
)
def test_widening_and_narrowing(narrow: str, wide: str) -> None:
    """Old code can read a narrower type, not a wider one."""
    widened = bumped((field("n", narrow),), (field("n", wide),))
    narrowed = bumped((field("n", wide),), (field("n", narrow),))
    assert [r.what for r in widened.event_types[0].reasons] == ["retyped widened"]
    assert [r.what for r in narrowed.event_types[0].reasons] == ["retyped narrowed"]
    assert (widened.verdict, narrowed.verdict) == (Verdict.BACKWARD, Verdict.FULL)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("int64", "string"),
        ("int32", "uint32"),
        ("decimal128(18, 2)", "decimal128(18, 4)"),
        ("int64", "double"),
        ("timestamp[us, tz=UTC]", "timestamp[us]"),
    ],
)
def test_retyping_that_is_neither(one: str, other: str) -> None:
    """Each type has values that the other cannot hold."""
    for before, after in ((one, other), (other, one)):
        found = bumped((field("n", before),), (field("n", after),))
        assert [(r.what, r.forward) for r in found.event_types[0].reasons] == [("retyped", False)]


def test_a_rename_is_guessed() -> None:
    """A removed and an added field of one type are reported as a possible rename."""
    texts = [r.text for r in bumped((SKU,), (field("article"),)).event_types[0].reasons]
    assert "renamed from sku?" in texts[0]
    assert "renamed to article?" in texts[1]
    assert "renamed" not in bumped((SKU,), (field("n", "int64"),)).event_types[0].reasons[0].text


def errors(found: Compatibility) -> list[tuple[str, str]]:
    """Return the findings that are errors in every mode."""
    assert not any(found.meets(mode) for mode in Mode if found.errors)
    return [(reason.what, reason.where) for _, reason in found.errors]


def test_an_unversioned_change_is_an_error() -> None:
    """Even an added optional field needs a new version: stored events lack it."""
    found = compare(shop((SKU,)), shop((SKU, field("note", nullable=True))))
    assert errors(found) == [("unversioned change", "v1 note")]
    assert "a new schema_version" in found.errors[0][1].text
    assert found.verdict is Verdict.FORWARD
    assert compare(shop((SKU,)), shop((field("n"),))).verdict is Verdict.NONE
    assert errors(compare(shop((SKU,), (SKU,)), shop((field("n"),), (SKU,)))) == [
        ("unversioned change", "v1 n"),
        ("unversioned change", "v1 sku"),
    ]


def test_a_missing_upcaster_is_an_error() -> None:
    """A missing upcaster is an error whether or not the old version is still declared."""
    complete = shop((SKU,), (SKU, field("note")))
    assert errors(compare(complete, shop((SKU,), (SKU, field("note")), upcast=False))) == [("missing upcaster", "v1")]
    without = Lock("shop", {key: locked for key, locked in complete.schemas.items() if key != ("Sold", 1)})
    assert errors(compare(complete, without)) == [("missing upcaster", "v1")]


def test_a_removed_event_type_is_an_error_and_a_retired_one_is_not() -> None:
    """An event type is retired when an upcaster converts its events to another type."""
    before = Lock("shop", {**shop((SKU,)).schemas, ("Paid", 1): LockedSchema((SKU,), None)})
    assert errors(compare(before, shop((SKU,)))) == [("removed event type", "Paid")]
    step = Step("paid_is_sold", "python", (("Sold", 1),))
    retired = Lock("shop", {**before.schemas, ("Paid", 1): LockedSchema((SKU,), step)})
    found = compare(before, retired)
    assert found.verdict is Verdict.FULL
    assert [r.text for t in found.event_types for r in t.reasons] == [
        "Paid is retired: upcaster paid_is_sold converts v1 to Sold v1"
    ]
    assert errors(compare(retired, shop((SKU,)))) == [("removed event type", "Paid")]
    assert [r.what for r in compare(retired, before).event_types[0].reasons] == ["declared again"]


def test_an_older_version_is_an_error() -> None:
    """A removed version leaves events stored with it unreadable."""
    assert errors(compare(shop((SKU,), (SKU,)), shop((SKU,)))) == [
        ("missing upcaster", "v2"),
        ("older version", "v1"),
    ]


def test_a_new_event_type_breaks_nothing() -> None:
    """A new event type is compatible: no older code reads it."""
    found = compare(Lock("shop", {}), shop((SKU,)))
    assert (found.verdict, [r.what for r in found.event_types[0].reasons]) == (Verdict.FULL, ["added event type"])


def test_domains_are_not_compared() -> None:
    """Lock files of different domains are not compared."""
    with pytest.raises(UsageError, match="different domains, 'shop' and 'desk'"):
        compare(Lock("shop", {}), Lock("desk", {}))


# The commands


def run(folder: Path, *arguments: str, code: int = 0) -> Result:
    """Run the command line on the domain of orders, with a lock file in a folder."""
    command = ["schemas", *arguments, "--file", str(folder / "lock.json"), "--domain", "orders"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository whose first commit has the lock file of slightly different contracts."""

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    run(tmp_path, "lock")
    document = json.loads((tmp_path / "lock.json").read_text())
    del document["events"]["OrderPlaced"]["3"]
    del document["events"]["OrderPlaced"]["2"]["upcaster"]
    del document["events"]["OrderPaid"]
    (tmp_path / "lock.json").write_text(json.dumps(document))
    git("add", ".")
    git("commit", "-qm", "then")
    git("tag", "then")
    run(tmp_path, "lock")
    return tmp_path


def test_locking(tmp_path: Path) -> None:
    """The lock file is written once, left alone while it is current, and verified in CI."""
    assert "is out of date" in run(tmp_path, "lock", "--verify", code=1).stdout
    assert not (tmp_path / "lock.json").exists()
    assert "18 schemas of domain orders" in run(tmp_path, "lock").stdout
    assert json.loads(run(tmp_path, "lock", "--json").stdout)["changed"] is False
    assert "is up to date" in run(tmp_path, "lock", "--verify").stdout
    (tmp_path / "lock.json").write_text("{}")
    run(tmp_path, "lock", "--verify", code=1)
    assert "Cannot write" in run(tmp_path / "nowhere", "lock", code=2).stderr


def test_checking_against_a_revision(repository: Path) -> None:
    """The lock file of a git revision, at the same path, is compared with the current code."""
    document = json.loads(run(repository, "check", "--against", "then", "--json").stdout)
    assert (document["verdict"], document["compatible"], document["errors"]) == ("backward", True, 0)
    changed = {t["event_type"]: t for t in document["event_types"] if t["reasons"]}
    assert {name: t["verdict"] for name, t in changed.items()} == {"OrderPaid": "full", "OrderPlaced": "backward"}
    assert (changed["OrderPlaced"]["before"], changed["OrderPlaced"]["after"]) == (2, 3)
    shown = run(repository, "check", "--against", "then", "--mode", "full", code=1).stdout
    assert "customer was removed (renamed to customer_id?)" in shown
    assert "2 event types changed" in shown
    assert "required: full (not met)" in shown


def test_checking_against_a_file(repository: Path) -> None:
    """Errors have their exit code in every mode; without --against the current lock file is used."""
    assert "0 event types changed" in run(repository, "check").stdout
    document = json.loads((repository / "lock.json").read_text())
    document["events"]["OrderGone"] = {"1": {"fields": []}}
    (repository / "other.json").write_text(json.dumps(document))
    for mode in ("backward", "forward", "full"):
        shown = run(repository, "check", "--against", str(repository / "other.json"), "--mode", mode, code=1).stdout
        assert "OrderGone is removed" in shown
    assert "1 error" in shown


def test_what_cannot_be_checked_against(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """An unknown revision is a usage error with git's own reason."""
    for revision in ("nope", "--help", "then:lock.json"):
        assert "Git reports: fatal" in run(repository, "check", f"--against={revision}", code=2).stderr
    assert "Git reports: fatal" in run(tmp_path_factory.mktemp("bare"), "check", "--against", "HEAD", code=2).stderr
    assert "no lock file" in run(tmp_path_factory.mktemp("empty"), "check", code=2).stderr
