"""Schema compatibility: every kind of change has a verdict and a reason; the lock files of this repository are true."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from refold.event_schemas import (
    Registry,
    UsageError,
    event,
    merger,
    upcaster,
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
    lock_of,
    read_lock,
    write_lock,
)
from refold.pipelines.cli.main import cli
from refold.warehouse.declarations.domain import load_domain

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A nested value."""

    sku: str
    quantity: int


@event(schema_version=2)
class Sold:
    """A field of every kind."""

    sku: str
    price: Annotated[Decimal, pa.decimal128(18, 2)]
    ref: UUID | None
    lines: list[Line]
    tags: list[str] | None


@upcaster(Sold, from_version=1, schema=pa.schema([pa.field("sku", pa.string(), nullable=False)]))
def add_price() -> str:
    """Sell old things for nothing."""
    return "SELECT *, 0::DECIMAL(18,2) AS price, NULL::UUID AS ref, [] AS lines, NULL AS tags FROM event"


@merger([("SkuScanned", 1, pa.schema([("sku", pa.string())])), ("Paid", 1, pa.schema([]))], into=Sold)
def join(given: list[Any]) -> list[Any]:
    """Join nothing; the lock file looks only at the declaration."""
    return []


REGISTRY = Registry(events=[Sold], upcasters=[add_price, join])


def field(name: str, type_: str = "string", *, nullable: bool = False) -> Field:
    """Make a field."""
    return Field(name, FieldType(type_), nullable)


def struct(*fields: Field) -> FieldType:
    """Make a nested type."""
    return FieldType("struct", fields)


def shop(*versions: tuple[Field, ...], upcast: bool = True) -> Lock:
    """Lock one event type, whose versions are these, each carried to the next."""
    last = len(versions)
    steps = [
        Step(f"to_{n + 1}", "sql", (("Sold", n + 1),)) if upcast and n < last else None for n in range(1, last + 1)
    ]
    return Lock(
        "shop", {("Sold", n): LockedSchema(f, s) for n, (f, s) in enumerate(zip(versions, steps, strict=True), 1)}
    )


def bumped(before: tuple[Field, ...], after: tuple[Field, ...]) -> Compatibility:
    """Judge a change that was made as it should be: with a new version, and an upcaster to it."""
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
    """It is backward compatible, and forward as far as each field allows."""
    before, after, reasons, verdict = CHANGES[change]
    found = bumped(before, after)
    assert {r.where: r.what for r in found.event_types[0].reasons} == reasons
    assert (found.verdict, found.errors) == (verdict, ())
    assert found.meets(Mode.BACKWARD)
    assert found.meets(Mode.FORWARD) is found.meets(Mode.FULL) is (verdict is Verdict.FULL)
    assert all("upcaster to_2 carries v1 to Sold v2" in r.text for r in found.event_types[0].reasons)


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
    """Old code can read what became narrower, not what became wider."""
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
    """By type, on both sides of it."""
    texts = [r.text for r in bumped((SKU,), (field("article"),)).event_types[0].reasons]
    assert "renamed from sku?" in texts[0]
    assert "renamed to article?" in texts[1]
    assert "renamed" not in bumped((SKU,), (field("n", "int64"),)).event_types[0].reasons[0].text


def errors(found: Compatibility) -> list[tuple[str, str]]:
    """Name what is wrong in any case."""
    assert not any(found.meets(mode) for mode in Mode if found.errors)
    return [(reason.what, reason.where) for _, reason in found.errors]


def test_an_unversioned_change_is_an_error() -> None:
    """Even one that adds an optional field: what is stored has none."""
    found = compare(shop((SKU,)), shop((SKU, field("note", nullable=True))))
    assert errors(found) == [("unversioned change", "v1 note")]
    assert "a schema_version of its own" in found.errors[0][1].text
    assert found.verdict is Verdict.FORWARD
    assert compare(shop((SKU,)), shop((field("n"),))).verdict is Verdict.NONE
    assert errors(compare(shop((SKU,), (SKU,)), shop((field("n"),), (SKU,)))) == [
        ("unversioned change", "v1 n"),
        ("unversioned change", "v1 sku"),
    ]


def test_a_missing_upcaster_is_an_error() -> None:
    """Whether the old version is still declared or not."""
    whole = shop((SKU,), (SKU, field("note")))
    assert errors(compare(whole, shop((SKU,), (SKU, field("note")), upcast=False))) == [("missing upcaster", "v1")]
    without = Lock(
        "shop", {schema_key: locked for schema_key, locked in whole.schemas.items() if schema_key != ("Sold", 1)}
    )
    assert errors(compare(whole, without)) == [("missing upcaster", "v1")]


def test_a_removed_event_type_is_an_error_and_a_retired_one_is_not() -> None:
    """It is retired when an upcaster carries its events into another."""
    before = Lock("shop", {**shop((SKU,)).schemas, ("Paid", 1): LockedSchema((SKU,), None)})
    assert errors(compare(before, shop((SKU,)))) == [("removed event type", "Paid")]
    step = Step("paid_is_sold", "python", (("Sold", 1),))
    retired = Lock("shop", {**before.schemas, ("Paid", 1): LockedSchema((SKU,), step)})
    found = compare(before, retired)
    assert found.verdict is Verdict.FULL
    assert [r.text for t in found.event_types for r in t.reasons] == [
        "Paid is retired: upcaster paid_is_sold carries v1 to Sold v1"
    ]
    assert errors(compare(retired, shop((SKU,)))) == [("removed event type", "Paid")]
    assert [r.what for r in compare(retired, before).event_types[0].reasons] == ["declared again"]


def test_a_version_that_goes_back_is_no_good() -> None:
    """What was stored meanwhile is not read."""
    assert errors(compare(shop((SKU,), (SKU,)), shop((SKU,)))) == [
        ("missing upcaster", "v2"),
        ("older version", "v1"),
    ]


def test_a_new_event_type_breaks_nothing() -> None:
    """Nobody knew it."""
    found = compare(Lock("shop", {}), shop((SKU,)))
    assert (found.verdict, [r.what for r in found.event_types[0].reasons]) == (Verdict.FULL, ["added event type"])


def test_domains_are_not_compared() -> None:
    """It would be a mix-up."""
    with pytest.raises(UsageError, match="different domains, 'shop' and 'desk'"):
        compare(Lock("shop", {}), Lock("desk", {}))


# The lock file


def test_a_lock_file_keeps_everything() -> None:
    """Types, nested ones too, what is optional, and where upcasters and mergers lead."""
    lock = lock_of(REGISTRY, "shop")
    again = read_lock(write_lock(lock), where="here")
    assert again == lock
    assert write_lock(again) == write_lock(lock)
    assert compare(lock, again).verdict is Verdict.FULL
    sold = lock.schemas["Sold", 2]
    assert (sold.upcaster, lock.newest("Sold"), lock.newest("Paid")) == (None, 2, None)
    assert [str(f.type) for f in sold.fields] == [
        *("string", "decimal128(18, 2)", "uuid"),
        *("list<element: struct<sku: string, quantity: int64>>", "list<element: string>"),
    ]
    assert lock.schemas["Sold", 1].upcaster == Step("add_price", "sql", (("Sold", 2),))
    assert lock.schemas["SkuScanned", 1].upcaster == Step("join", "merge", (("Sold", 2),))


def test_the_order_of_declarations_changes_no_lock_file() -> None:
    """So that a diff shows what changed and nothing else."""
    turned = Registry(events=[Sold], upcasters=[join, add_price])
    assert write_lock(lock_of(turned, "shop")) == write_lock(lock_of(REGISTRY, "shop"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "domain": "a", "events": {"A": 1}}'])
def test_what_is_no_lock_file(text: str) -> None:
    """The error names it, and how to make one."""
    with pytest.raises(UsageError, match=r"here is no lock file .* `refold schemas lock`"):
        read_lock(text, where="here")
    with pytest.raises(UsageError, match="lock format 2"):
        read_lock('{"format": 2}', where="here")


@pytest.mark.parametrize("domain", ["orders", "trading"])
def test_the_lock_files_of_this_repository_are_up_to_date(domain: str) -> None:
    """Whoever changes a contract runs ``refold schemas lock`` and sees the change in the diff."""
    found = load_domain(domain)
    text = (ROOT / "event_schemas" / f"{domain}.lock.json").read_text()
    wanted = write_lock(lock_of(found.registry, found.name))
    assert text == wanted, f"run `refold --domain {domain} schemas lock --file event_schemas/{domain}.lock.json`"


# The commands


def run(folder: Path, *arguments: str, code: int = 0) -> Result:
    """Run the command line on the domain of orders, with a lock file in a folder."""
    command = ["schemas", *arguments, "--file", str(folder / "lock.json"), "--domain", "orders"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository whose first commit has the lock file of contracts that were a little different."""

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    run(tmp_path, "lock")
    told = json.loads((tmp_path / "lock.json").read_text())
    del told["events"]["OrderPlaced"]["3"]
    del told["events"]["OrderPlaced"]["2"]["upcaster"]
    del told["events"]["OrderPaid"]
    (tmp_path / "lock.json").write_text(json.dumps(told))
    git("add", ".")
    git("commit", "-qm", "then")
    git("tag", "then")
    run(tmp_path, "lock")
    return tmp_path


def test_locking(tmp_path: Path) -> None:
    """Written once, kept while it is true, and verified in CI."""
    assert "is not up to date" in run(tmp_path, "lock", "--verify", code=1).stdout
    assert not (tmp_path / "lock.json").exists()
    assert "18 schemas of domain orders" in run(tmp_path, "lock").stdout
    assert json.loads(run(tmp_path, "lock", "--json").stdout)["changed"] is False
    assert "is up to date" in run(tmp_path, "lock", "--verify").stdout
    (tmp_path / "lock.json").write_text("{}")
    run(tmp_path, "lock", "--verify", code=1)
    assert "Cannot write" in run(tmp_path / "nowhere", "lock", code=2).stderr


def test_checking_against_a_revision(repository: Path) -> None:
    """The lock file as git has it at the same path, against the code of now."""
    told = json.loads(run(repository, "check", "--against", "then", "--json").stdout)
    assert (told["verdict"], told["compatible"], told["errors"]) == ("backward", True, 0)
    changed = {t["event_type"]: t for t in told["event_types"] if t["reasons"]}
    assert {name: t["verdict"] for name, t in changed.items()} == {"OrderPaid": "full", "OrderPlaced": "backward"}
    assert (changed["OrderPlaced"]["before"], changed["OrderPlaced"]["after"]) == (2, 3)
    shown = run(repository, "check", "--against", "then", "--mode", "full", code=1).stdout
    assert "customer was removed (renamed to customer_id?)" in shown
    assert "2 event types changed" in shown
    assert "full was demanded: broken" in shown


def test_checking_against_a_file(repository: Path) -> None:
    """Errors have their exit code in every mode; without --against the lock file itself is meant."""
    assert "0 event types changed" in run(repository, "check").stdout
    told = json.loads((repository / "lock.json").read_text())
    told["events"]["OrderGone"] = {"1": {"fields": []}}
    (repository / "other.json").write_text(json.dumps(told))
    for mode in ("backward", "forward", "full"):
        shown = run(repository, "check", "--against", str(repository / "other.json"), "--mode", mode, code=1).stdout
        assert "OrderGone is gone" in shown
    assert "1 error" in shown


def test_what_cannot_be_checked_against(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A usage error with git's own reason."""
    for revision in ("nope", "--help", "then:lock.json"):
        assert "git says: fatal" in run(repository, "check", f"--against={revision}", code=2).stderr
    assert "git says: fatal" in run(tmp_path_factory.mktemp("bare"), "check", "--against", "HEAD", code=2).stderr
    assert "no lock file" in run(tmp_path_factory.mktemp("empty"), "check", code=2).stderr
