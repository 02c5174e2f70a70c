"""``refold schemas``: the contracts of a domain, and what carries old events to them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from pipelines.commands.invocation import Command, Invocation, as_epilog, common_options, pass_invocation

if TYPE_CHECKING:
    from event_schemas import Registry
    from warehouse.dry_run import ShapeResult


@click.group(epilog=as_epilog("refold schemas list"))
def schemas() -> None:
    """Look at event contracts and upcasters."""


@schemas.command(name="list", cls=Command, example="refold schemas list\nrefold schemas list --domain trading --json")
@common_options("domain")
@pass_invocation
def list_schemas(call: Invocation) -> None:
    """List every event type in every schema version, and what each becomes.

    The types of fields are told with --json.
    """
    from pipelines.commands import output

    registry = call.domain.registry
    described = [_describe(registry, *shape) for shape in registry.shapes]
    if call.json:
        output.print_json({"domain": call.domain.name, "schemas": described})
        return
    rows = [
        (
            f"{d['event_type']} v{d['schema_version']}",
            ", ".join(d["becomes"]) or "the newest",
            d["upcaster"],
            ", ".join(f["name"] for f in d["fields"]),
        )
        for d in described
    ]
    output.print_table(("event", "becomes", "by upcaster", "fields"), rows, wrap_last=True)


@schemas.command(name="dry-run", cls=Command, example="refold schemas dry-run\nrefold schemas dry-run --json")
@common_options("domain", "log")
@pass_invocation
def dry_run(call: Invocation) -> None:
    """Run every stored event through its upcasters, and write nothing.

    Exits with code 1 if some events fail, and tells which and why: run it before new code goes to work on the log.
    """
    from pipelines.commands import output
    from pipelines.progress import bar
    from warehouse.dry_run import dry_run as run_dry

    log = call.open_log()
    with bar("dry run", "steps") as report:
        results = run_dry(log, call.domain, report=report)
    broken = sum(result.broken for result in results)
    if call.json:
        output.print_json({"broken": broken, "schemas": [asdict(result) for result in results]})
    else:
        _print_results(results)
    if broken:
        raise click.exceptions.Exit(1)


def _print_results(results: list[ShapeResult]) -> None:
    from pipelines.commands import output

    rows = [
        (
            f"{r.event_type} v{r.schema_version}",
            ", ".join(r.becomes),
            r.events,
            f"{r.broken:,}{'' if r.complete else ' or more'}",
        )
        for r in results
    ]
    output.print_table(("stored event", "becomes", "events", "broken"), rows)
    for result in results:
        for reason in result.reasons:
            output.say(
                f"{result.event_type} v{result.schema_version}: {output.plural(reason.events, 'event')}, the first at "
                f"position {reason.first_position:,}: {reason.text}"
            )


def _describe(registry: Registry, event_type: str, schema_version: int) -> dict[str, Any]:
    step = registry.upcaster((event_type, schema_version))
    schema = registry.schema(event_type, schema_version)
    if step is None:
        becomes = []
    elif step.into:
        becomes = ["{} v{}".format(*shape) for target in step.targets if (shape := registry.newest(target))]
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
