"""``refold schemas``: a domain's event contracts and upcasters."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refold.pipelines.cli.support.invocation import (
    Command,
    Invocation,
    as_epilog,
    common_options,
    pass_invocation,
)

if TYPE_CHECKING:
    from refold.event_schemas import Registry
    from refold.event_schemas.compatibility import Compatibility, TypeVerdict
    from refold.warehouse.replay.dry_run import DryRunResult


@click.group(epilog=as_epilog("refold schemas list"))
def schemas() -> None:
    """List, lock, check and try event contracts and upcasters."""


@schemas.command(name="list", cls=Command, example="refold schemas list\nrefold schemas list --domain trading --json")
@common_options("domain")
@pass_invocation
def list_schemas(call: Invocation) -> None:
    """List all schemas and their upcasters.

    Each row is an event type in a schema version, and what its upcaster makes of it. --json adds the types of fields.
    """
    from refold.pipelines.cli.support import output

    registry = call.domain.registry
    described = [_describe(registry, *schema_key) for schema_key in registry.schema_keys]
    if call.json:
        output.print_json({"domain": call.domain.name, "schemas": described})
        return
    rows = [
        (
            f"{d['event_type']} v{d['schema_version']}",
            ", ".join(d["becomes"]) or "(newest version)",
            d["upcaster"],
            ", ".join(f["name"] for f in d["fields"]),
        )
        for d in described
    ]
    output.print_table(("schema", "becomes", "by upcaster", "fields"), rows, wrap_last=True)


_FILE = click.option(
    "--file",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("event_schemas.lock.json"),
    show_default=True,
    help="The lock file.",
)


@schemas.command(name="lock", cls=Command, example="refold schemas lock\nrefold schemas lock --verify")
@_FILE
@click.option("--verify", is_flag=True, help="Write nothing; exit with code 1 if the file is out of date.")
@common_options("domain")
@pass_invocation
def lock_schemas(call: Invocation, file: Path, verify: bool) -> None:
    """Write all schemas to a lock file.

    The file has the types, optional fields and upcasters of every schema. Commit it: `refold schemas check` compares
    with it later.
    """
    from refold.event_schemas import UsageError
    from refold.event_schemas.lock import lock_of, write_lock
    from refold.pipelines.cli.support import output

    lock = lock_of(call.domain.registry, call.domain.name)
    text = write_lock(lock)
    same = file.exists() and file.read_text() == text
    if not (same or verify):
        try:
            file.write_text(text)
        except OSError as error:
            raise UsageError(f"Cannot write the lock file {file}: {error.strerror}. Give another --file.") from error
    if call.json:
        output.print_json({"file": str(file), "schemas": len(lock.schemas), "changed": not same})
    elif verify and not same:
        output.print_text(f"{file} is out of date: run `refold schemas lock` and commit it.")
    else:
        state = "is up to date" if same else "was written"
        output.print_text(f"{file} {state}: {output.counted(len(lock.schemas), 'schema')} of domain {lock.domain}.")
    if verify and not same:
        raise click.exceptions.Exit(1)


_CHECK = """\
refold schemas check --against main
refold schemas check --against v1.4.0 --mode full --json"""


@schemas.command(name="check", cls=Command, example=_CHECK)
@click.option(
    "--against",
    metavar="REV|FILE",
    help="A git revision that has the lock file, or a lock file; by default --file itself.",
)
@click.option(
    "--mode",
    type=click.Choice(["backward", "forward", "full"]),
    default="backward",
    show_default=True,
    help="Required compatibility: new code reads old data, old code reads new data, or both.",
)
@_FILE
@common_options("domain")
@pass_invocation
def check_schemas(call: Invocation, against: str | None, mode: str, file: Path) -> None:
    """Check the compatibility of changed contracts.

    Each change has a verdict and a reason. Exits with code 1 if a change breaks what --mode requires, or if a stored
    schema changed without a new schema_version, lost its upcaster, or disappeared while its events remain.
    """
    from refold.event_schemas.compatibility import Mode, compare
    from refold.event_schemas.lock import lock_of
    from refold.pipelines.cli.support import output
    from refold.pipelines.cli.support.contract_lock import find_lock

    found = compare(find_lock(against, file), lock_of(call.domain.registry, call.domain.name))
    kept = found.meets(Mode(mode))
    if call.json:
        judged = [{"event_type": t.event_type, **_judgement(t)} for t in found.event_types]
        checked = {"against": against or str(file), "mode": mode, "verdict": found.verdict.value}
        output.print_json({**checked, "compatible": kept, "errors": len(found.errors), "event_types": judged})
    else:
        _print_judgement(found, mode, kept)
    if not kept:
        raise click.exceptions.Exit(1)


def _judgement(judged: TypeVerdict) -> dict[str, Any]:
    reasons = [asdict(reason) for reason in judged.reasons]
    return {"verdict": judged.verdict.value, "before": judged.before, "after": judged.after, "reasons": reasons}


def _print_judgement(found: Compatibility, mode: str, kept: bool) -> None:
    from refold.pipelines.cli.support import output

    changed = [t for t in found.event_types if t.reasons]
    rows = [
        (
            t.event_type,
            _version(t.before),
            _version(t.after),
            t.verdict.value,
            f"{'error: ' if r.error else ''}{r.what}",
            r.text,
        )
        for t in changed
        for r in t.reasons
    ]
    if rows:
        output.print_table(("event", "before", "now", "verdict", "what", "why"), rows, wrap_last=True)
    same = len(found.event_types) - len(changed)
    output.print_text(
        f"{output.counted(len(changed), 'event type')} changed, {same:,} as before. Verdict: {found.verdict.value}"
        + (f", {output.counted(len(found.errors), 'error')}" if found.errors else "")
        + f"; required: {mode} ({'met' if kept else 'not met'})."
    )


def _version(number: int | None) -> str:
    return f"v{number}" if number else ""


@schemas.command(name="dry-run", cls=Command, example="refold schemas dry-run\nrefold schemas dry-run --json")
@common_options("domain", "log")
@pass_invocation
def dry_run(call: Invocation) -> None:
    """Run all stored events through their upcasters.

    Writes nothing. Exits with code 1 if events fail, and shows which and why. Run it before you deploy new code.
    """
    from refold.pipelines.cli.progress import count_progress
    from refold.pipelines.cli.support import output
    from refold.warehouse.replay.dry_run import dry_run as run_dry

    log = call.open_log()
    with count_progress("dry run", "steps", quiet=call.quiet) as report:
        results = run_dry(log, call.domain, report=report)
    invalid = sum(result.invalid for result in results)
    if call.json:
        output.print_json({"invalid": invalid, "schemas": [asdict(result) for result in results]})
    else:
        _print_results(results)
    if invalid:
        raise click.exceptions.Exit(1)


def _print_results(results: list[DryRunResult]) -> None:
    from refold.pipelines.cli.support import output

    rows = [
        (
            f"{r.event_type} v{r.schema_version}",
            ", ".join(r.becomes),
            r.events,
            f"{r.invalid:,}{'' if r.complete else ' or more'}",
        )
        for r in results
    ]
    output.print_table(("stored schema", "becomes", "events", "invalid"), rows)
    for result in results:
        for reason in result.reasons:
            more = ", …" if reason.events > len(reason.positions) else ""
            at = ", ".join(f"{position:,}" for position in reason.positions)
            output.print_text(
                f"{result.event_type} v{result.schema_version}: {output.counted(reason.events, 'event')} at "
                f"{at}{more}: {reason.text}"
            )


def _describe(registry: Registry, event_type: str, schema_version: int) -> dict[str, Any]:
    step = registry.upcaster((event_type, schema_version))
    schema = registry.schema(event_type, schema_version)
    if step is None:
        becomes = []
    elif step.into:
        becomes = ["{} v{}".format(*schema_key) for target in step.targets if (schema_key := registry.newest(target))]
    else:
        becomes = [f"{event_type} v{schema_version + 1}"]
    return {
        "event_type": event_type,
        "schema_version": schema_version,
        "newest": step is None,
        "becomes": becomes,
        "upcaster": step.function.__name__ if step else None,
        "form": step.form.value if step else None,
        "fields": [{"name": f.name, "type": str(f.type), "nullable": f.nullable} for f in schema],
    }
