"""``refold erase``: a subject's personal data unreadable, and the proof of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from refold.pipelines.cli.support.invocation import BeamCommand, Invocation, common_options, pass_invocation

if TYPE_CHECKING:
    from refold.pipelines.erasure.erase import Erased
    from refold.pipelines.erasure.prove import Proof


@click.command(
    cls=BeamCommand,
    example='refold erase --subject customer-7 --reason "request 2041"\nrefold erase --prove customer-7',
)
@click.option("--subject", "subjects", multiple=True, metavar="ID", help="Whose data to erase; may be repeated.")
@click.option("--reason", metavar="TEXT", help="Why; it becomes part of the log.")
@click.option("--field", metavar="NAME", help="The field that names the subject; by default any that does.")
@click.option("--now", is_flag=True, help="Also remove older generations, except those that a reader has open.")
@click.option("--prove", metavar="ID", help="Only search for what is still readable of a subject.")
@common_options("domain", "log", "read_models", "runner")
@pass_invocation
def erase(
    call: Invocation,
    subjects: tuple[str, ...],
    reason: str | None,
    field: str | None,
    now: bool,
    prove: str | None,
) -> None:
    """Destroy the keys of a subject's personal data, and renew what was made from it.

    An event says that the data was erased. Snapshots that may hold it are removed, and read models that may hold it
    are rebuilt. Positions, counts, the chain of digests and all other data stay as they are. If the command is killed,
    run it again: it completes what is left.

    With --prove nothing is changed: commits, segments, archive, snapshots, generations with their dead letters, staged
    rows, working files and cached copies are searched. Exits with code 1 if something is left.
    """
    if prove is not None:
        if subjects or reason or now:
            raise click.UsageError("--prove only searches: give it without --subject, --reason and --now.")
        _prove(call, prove, field)
        return
    if not subjects or not reason:
        raise click.UsageError("Give --subject and --reason, or --prove.")
    log, options, generations = call.open_log(), call.beam_options(), call.open_generations()

    from refold.pipelines.cli.progress import rebuild_progress
    from refold.pipelines.erasure.erase import erase as erase_subjects
    from refold.pipelines.erasure.erase import subjects_of

    for subject in subjects:
        subjects_of(call.domain.registry, subject, field)
    before = generations.numbers()
    with rebuild_progress(quiet=call.quiet) as report:
        erased = erase_subjects(
            log,
            call.domain_ref,
            call.settings.read_models,
            subjects,
            options,
            reason=reason,
            field=field,
            now=now,
            report=report,
        )
    _print_erased(call, erased, removed=sorted(set(before) - set(generations.numbers())))


def _prove(call: Invocation, subject: str, field: str | None) -> None:
    log = call.open_log()

    from refold.pipelines.erasure.prove import prove_erasure

    proof = prove_erasure(log, call.domain_ref, call.settings.read_models, subject, field=field)
    _print_proof(call, proof)
    if proof.traces:
        raise click.exceptions.Exit(1)


def _print_erased(call: Invocation, erased: Erased, *, removed: list[int]) -> None:
    import dataclasses

    from refold.pipelines.cli.support.output import counted, print_json, print_text

    if call.json:
        print_json({**dataclasses.asdict(erased), "removed_generations": removed})
        return
    named = ", ".join(f"{s.field} {s.value}" for s in erased.subjects)
    print_text(f"Destroyed {counted(len(erased.key_ids), 'key')} of {named}.")
    print_text(
        f"Appended {counted(erased.appended, 'event')}, removed {counted(erased.snapshots, 'snapshot')}, rebuilt "
        f"{', '.join(erased.rebuilt) or 'no read model'}."
    )
    if erased.dead_letters:
        print_text(f"{counted(erased.dead_letters, 'event')} could not be applied: see `refold dead-letters list`.")
    if removed:
        print_text(f"Removed the generations {', '.join(map(str, removed))}.")
    if erased.holding:
        print_text(
            f"The generations {', '.join(map(str, erased.holding))} may still hold the data. `refold generations gc` "
            "removes them once its window is over, --now at once; one that a reader has open stays until it is closed."
        )


def _print_proof(call: Invocation, proof: Proof) -> None:
    import dataclasses

    from refold.pipelines.cli.support.output import counted, print_json, print_text

    if call.json:
        print_json(dataclasses.asdict(proof))
        return
    places = ", ".join(f"{number:,} {kind}" for kind, number in proof.searched.items())
    print_text(f"Searched for {proof.subject} in {places}.")
    print_text(
        f"{counted(proof.events, 'event')} with {counted(proof.values, 'encrypted value')}; "
        f"{counted(len(proof.destroyed), 'key')} destroyed."
    )
    for trace in proof.traces:
        print_text(f"{trace.kind}: {trace.where}: {trace.what}")
    if not proof.traces:
        print_text("Nothing readable is left.")
