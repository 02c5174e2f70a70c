"""Rolling back: an older generation is published again, as a new one.

The new generation names the older one's file, which is immutable: nothing is copied, and sessions that are open go on.
"""

from __future__ import annotations

import dataclasses

from refold.event_schemas import GenerationError, UsageError
from refold.warehouse.read_models.generations.generations import Generation, Generations, now

_ATTEMPTS = 10


def roll_back(generations: Generations, number: int | None = None) -> Generation:
    """Publish an older generation's content as the newest.

    Args:
        generations: the published read models.
        number: the generation to show again; the one before the newest by default.

    Raises:
        GenerationError: there is no such generation, or its file is gone.
        UsageError: it is the newest already.
    """
    for _ in range(_ATTEMPTS):
        newest = generations.newest()
        if newest is None:
            raise GenerationError(f"Nothing is published at {generations.store.url}, so there is nothing to roll back.")
        older = generations.get(_before(generations, newest) if number is None else number)
        if older.number == newest.number:
            raise UsageError(f"Generation {older.number} is the newest already. Name an older one.")
        if not generations.store.exists(older.file):
            raise GenerationError(
                f"Generation {older.number} names {generations.store.url}/{older.file}, which is missing. Name another."
            )
        made = _again(older, newest.number + 1)
        if generations.claim(made):
            _check_kept(generations, older, newest)
            generations.update_current_link()
            return made
    raise GenerationError(f"Others published to {generations.store.url} all the time; gave up. Try again.")


def _before(generations: Generations, newest: Generation) -> int:
    older = [n for n in generations.numbers() if n < newest.number]
    if not older:
        raise GenerationError(
            f"Generation {newest.number} is the only one that is kept in {generations.store.url}: there is none before "
            "it to roll back to. Rebuild with `refold rebuild`."
        )
    return older[-1]


def _again(older: Generation, number: int) -> Generation:
    return dataclasses.replace(older, number=number, parent=older.number, published_at=now(), kind="rollback")


def _check_kept(generations: Generations, older: Generation, newest: Generation) -> None:
    """Make sure that the older one was not being collected at this moment; else show the newest again.

    A collector removes a generation's object before it looks which files are still named: so as long as that object is
    there after ours is, the collector sees ours, and keeps the file.
    """
    if older.number in generations.numbers():
        return
    generations.claim(_again(newest, newest.number + 2))  # whoever else was faster put something better there
    generations.update_current_link()
    raise GenerationError(
        f"Generation {older.number} was collected by `refold generations gc` at this very moment, so generation "
        f"{newest.number} stays the one that is shown."
    )
