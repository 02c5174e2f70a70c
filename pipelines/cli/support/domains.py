"""Which domain a command works on: the one that is named, else the one whose name the log or the read models carry.

Nothing is guessed: a command that finds neither ends with an error that lists what can be given.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import entry_points

from refold.event_schemas import UsageError
from refold.pipelines.cli.config import Origin, Settings, option_of, variable_of
from refold.warehouse.declarations.domain import ENTRY_POINT_GROUP, load_domain
from refold.warehouse.event_log.layout import CONFIG_KEY
from refold.warehouse.event_log.opening import open_log
from refold.warehouse.object_store import ObjectStore, open_store
from refold.warehouse.read_models.generations.generations import open_generations

_LAST = "\U0010ffff"
"""Sorts after every key of a folder, so that a listing skips what is left of it."""


@dataclass(frozen=True, slots=True)
class StoredName:
    """A domain's name as a store has it.

    Attributes:
        name: the domain's name.
        where: what carries it, as the subject of a sentence.
    """

    name: str
    where: str


def is_named(settings: Settings) -> bool:
    """Check whether the settings name the domain for good, so that a log of another one is an error.

    A settings file's domain belongs to that file's log and read models. Where an option or a variable gives others, it
    is only one of the domains that may fit them.
    """
    urls = max(settings.origin("log"), settings.origin("read_models"))
    return settings.domain is not None and (
        settings.origin("domain") >= Origin.ENVIRONMENT or urls < Origin.ENVIRONMENT
    )


def stored_name(settings: Settings, *, log_first: bool) -> StoredName | None:
    """Read the domain's name from the log or from the read models; None if there is neither.

    Args:
        settings: where the two are.
        log_first: whether the log decides where both are there.

    Raises:
        UsageError: only read models are there, of several domains.
    """
    sources = (_name_of_log, _name_of_read_models)
    for read in sources if log_first else reversed(sources):
        if found := read(settings):
            return found
    return None


def find_domain(settings: Settings, stored: StoredName | None) -> str:
    """Return what :func:`load_domain` takes: an installed domain's name, or a dotted path.

    Raises:
        UsageError: no domain is named, and none that is installed has the stored name.
    """
    named = settings.domain
    if named is not None and (stored is None or is_named(settings) or load_domain(named).name == stored.name):
        return named
    if stored is not None and (installed := _installed(stored.name)):
        return installed
    if stored is not None:
        raise no_domain(f"{stored.where} belong to domain {stored.name!r}, and no installed domain has that name")
    raise no_domain(
        f"No domain is named, and there is neither an event log at {settings.log} nor anything published at "
        f"{settings.read_models} that would name one"
    )


def no_domain(found: str) -> UsageError:
    """Make the error of a command that needs a domain and has none.

    Args:
        found: what was found instead; the error goes on with what can be given.
    """
    installed = ", ".join(sorted(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP))) or "none"
    return UsageError(f"{found}. {how_to_name()} Installed domains: {installed}.")


def how_to_name() -> str:
    """Say how to name a domain."""
    return (
        f"Give {option_of('domain')} NAME or {option_of('domain')} my_shop.domain:SHOP, set {variable_of('domain')}, "
        'or write domain = "…" in refold.toml.'
    )


def _name_of_log(settings: Settings) -> StoredName | None:
    if not open_store(settings.log).exists(CONFIG_KEY):
        return None
    return StoredName(open_log(settings.log).domain_name, f"The events of the log at {settings.log}")


def _name_of_read_models(settings: Settings) -> StoredName | None:
    names = list(_published(open_store(settings.read_models), settings.read_models))
    if len(names) > 1:
        raise UsageError(
            f"The read models at {settings.read_models} belong to several domains: {', '.join(names)}. {how_to_name()}"
        )
    return StoredName(names[0], f"The read models at {settings.read_models}") if names else None


def _published(store: ObjectStore, url: str) -> Iterator[str]:
    """Name the folders that hold a domain's generations, each found by its first key."""
    after = ""
    while key := next(store.list_from("", start_after=after), ""):
        name, separator, _ = key.partition("/")
        after = f"{name}/{_LAST}" if separator else key
        if separator and open_generations(url, name).numbers():
            yield name


def _installed(name: str) -> str | None:
    """Return the entry point of the domain with a name; most are named as their domain."""
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda e: e.name != name):
        with suppress(Exception):  # a package that cannot be imported must not stop the others
            if load_domain(entry.name).name == name:
                return entry.name
    return None
