"""``refold schemas``: the contracts of a domain, and what carries old events to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pipelines.commands.invocation import Command, Invocation, as_epilog, common_options, pass_invocation

if TYPE_CHECKING:
    from event_schemas import Registry


@click.group(epilog=as_epilog("refold schemas list"))
def schemas() -> None:
    """Look at event contracts and upcasters."""


@schemas.command(name="list", cls=Command, example="refold schemas list\nrefold schemas list --domain trading --json")
@common_options("domain")
@pass_invocation
def list_schemas(call: Invocation) -> None:
    """List every event type in every schema version, and what each becomes."""
    from pipelines.commands import output

    registry = call.domain.registry
    described = [_describe(registry, *shape) for shape in registry.shapes]
    if call.json:
        output.print_json({"domain": call.domain.name, "schemas": described})
        return
    rows = [
        (
            f"{d['event_type']} v{d['schema_version']}",
            "the newest" if d["newest"] else f"{', '.join(d['becomes'])} ({d['form']} {d['upcaster']})",
            ", ".join(f"{f['name']} {f['type']}{'?' if f['nullable'] else ''}" for f in d["fields"]),
        )
        for d in described
    ]
    output.print_table(("event", "becomes", "fields"), rows)


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
