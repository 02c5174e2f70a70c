"""Rolling back: an older generation is published again, as a new one.

The new generation references the older one's immutable file: nothing is copied, and open sessions continue.
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
        number: the generation to publish again; the one before the newest by default.

    Raises:
        GenerationError: there is no such generation, or its file is missing.
        UsageError: it is the newest.
    """
    for _ in range(_ATTEMPTS):
        newest = generations.newest()
        if newest is None:
            raise GenerationError(f"Nothing is published at {generations.store.url}, so there is nothing to roll back.")
        older = generations.get(_before(generations, newest) if number is None else number)
        if older.number == newest.number:
            raise UsageError(f"Generation {older.number} is the newest. Name an older one.")
        if not generations.store.exists(older.file):
            raise GenerationError(
                f"Generation {older.number} names {generations.store.url}/{older.file}, which is missing. Name another."
            )
        made = _again(older, newest.number + 1)
        if generations.claim(made):
            _check_kept(generations, older, newest)
            generations.update_current_link()
            return made
    raise GenerationError(
        f"Other processes published to {generations.store.url} first, {_ATTEMPTS} times in a "
        "row; nothing was rolled back. Try again, or stop the stream first."
    )


def _before(generations: Generations, newest: Generation) -> int:
    older = [n for n in generations.numbers() if n < newest.number]
    if not older:
        raise GenerationError(
            f"Generation {newest.number} is the only one in {generations.store.url}: there is none before it to roll "
            "back to. Rebuild with `refold rebuild`."
        )
    return older[-1]


def _again(older: Generation, number: int) -> Generation:
    return dataclasses.replace(older, number=number, parent=older.number, published_at=now(), kind="rollback")


def _check_kept(generations: Generations, older: Generation, newest: Generation) -> None:
    """Check that the older one was not collected concurrently; else publish the newest again.

    A collection removes a generation's object before it reads the references to files. So if that object still exists
    after ours was created, the collection sees ours, and keeps the file.
    """
    if older.number in generations.numbers():
        return
    generations.claim(_again(newest, newest.number + 2))  # if the number is taken, another publisher has replaced it
    generations.update_current_link()
    raise GenerationError(
        f"`refold generations gc` collected generation {older.number} during the rollback, so generation "
        f"{newest.number} was published again. Name another generation."
    )
