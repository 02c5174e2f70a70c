"""A domain: its events, upcasters, read models, views, deciders and endpoints as one value, checked together."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from refold.event_schemas import (
    ContractError,
    ProjectionError,
    Registry,
    Upcaster,
    UsageError,
)
from refold.event_schemas.decider import Decider
from refold.event_schemas.names import first_double, folded
from refold.event_schemas.registry import SchemaKey
from refold.event_schemas.upcasting import Form
from refold.warehouse.declarations.declared_code import CodeDigests
from refold.warehouse.declarations.declared_names import also, check_table_names
from refold.warehouse.declarations.determinism import check_plan
from refold.warehouse.declarations.endpoints import BoundEndpoint, Endpoint, bind, check_paths
from refold.warehouse.declarations.projection import (
    Projection,
    ReadModel,
    View,
    check_created_view,
    check_seed_columns,
    check_view,
    create_table_sql,
    create_view,
)
from refold.warehouse.declarations.upcaster_sql import compile_sql
from refold.warehouse.engine.bound_plan import bound_plan
from refold.warehouse.engine.duckdb_types import types_of
from refold.warehouse.engine.scratch import scratch_schema
from refold.warehouse.engine.sql import SqlError, first_line, quote

if TYPE_CHECKING:
    from refold.warehouse.event_log.new_events import StreamAppend

ENTRY_POINT_GROUP = "refold.domains"


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """The declarations of one business domain.

    Args:
        name: its name, which the log and the read models record.
        events: the newest class of every event type.
        upcasters: the steps from older schema versions and retired event types to these classes.
        read_models: projections and folds.
        views: SQL over the read models; a view may read the views before it.
        deciders: the write side: the commands, and the events that they lead to.
        endpoints: the query side: the lookups and reports that are served over HTTP.
        page: a folder with ``index.html`` and the static files that it uses. ``refold serve`` serves the index at
            ``/`` and the files at ``/static/NAME``; a domain without a page has no ``/``. The page reads the same
            HTTP API as any client, and may load nothing from another host.
        sample_history: takes a number of events and a seed, and yields rounds of appends for ``refold demo``. The
            appends of a round go to different streams and state their ``expected_version``; they may run concurrently.

    Raises:
        ContractError: events and upcasters contradict each other, an upcaster does not bind, or two deciders accept
            the same command; or the code of an upcaster or of a state that has snapshots depends on something that
            cannot be seen.
        ProjectionError: two read models share a name, one reads an unknown event, or a view or an endpoint does
            not bind; or a fold depends on something that cannot be seen.

    Example:
        >>> from refold.event_schemas import event
        >>> @event(schema_version=1)
        ... class DoorOpened:
        ...     door: str
        >>> Domain(name="doors", events=(DoorOpened,)).registry.schema_keys
        (('DoorOpened', 1),)
    """

    name: str
    events: tuple[type, ...]
    upcasters: tuple[Upcaster, ...] = ()
    read_models: tuple[ReadModel, ...] = ()
    views: tuple[View, ...] = ()
    deciders: tuple[Decider[Any], ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    page: Path | None = None
    sample_history: Callable[[int, int], Iterator[Sequence[StreamAppend]]] | None = field(default=None, compare=False)
    registry: Registry = field(init=False, repr=False, compare=False)
    upcaster_sql: Mapping[SchemaKey, str] = field(init=False, repr=False, compare=False)
    commands: Mapping[str, tuple[Decider[Any], type]] = field(init=False, repr=False, compare=False)
    bound_endpoints: tuple[BoundEndpoint, ...] = field(init=False, repr=False, compare=False)
    code: CodeDigests = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ContractError(f"Domain {self.name!r}: the name must be an identifier, such as my_shop.")
        registry = Registry(events=self.events, upcasters=self.upcasters)
        object.__setattr__(self, "registry", registry)
        compiled = {u.sources[0].key: compile_sql(u, registry) for u in registry.upcasters if u.form is Form.SQL}
        object.__setattr__(self, "upcaster_sql", compiled)
        object.__setattr__(self, "commands", self._commands())
        self._check_read_models()
        object.__setattr__(self, "bound_endpoints", self._bound())
        object.__setattr__(self, "code", CodeDigests(registry, self.read_models, self.deciders))

    def read_model(self, name: str) -> ReadModel:
        """Find a read model by name.

        Raises:
            UsageError: there is none; the message lists those there are.
        """
        for model in self.read_models:
            if model.name == name:
                return model
        known = ", ".join(m.name for m in self.read_models) or "none"
        raise UsageError(f"Domain {self.name} has no read model {name!r}; it has: {known}.")

    def _commands(self) -> dict[str, tuple[Decider[Any], type]]:
        """Index the commands by name."""
        found: dict[str, tuple[Decider[Any], type]] = {}
        for decider in self.deciders:
            for cls in decider.commands:
                if double := first_double([*found, cls.__name__]):
                    raise ContractError(
                        f"Domain {self.name}: the deciders {found[double[0]][0].name} and {decider.name} both accept a "
                        f"command {cls.__name__}{also(*double)}. Rename the command, or remove it from one of them."
                    )
                found[cls.__name__] = (decider, cls)
        return found

    def _check_read_models(self) -> None:
        check_table_names(self.name, [*(m.name for m in self.read_models), *(v.name for v in self.views)])
        self._check_seen_tables()
        for model in self.read_models:
            for handler in model.handlers:
                if self.registry.classes.get(handler.event_type) is not handler.event_class:
                    raise ProjectionError(
                        f"Read model {model.name} reads event {handler.event_type}, which is not among the events of "
                        f"domain {self.name}. Add the class to events=."
                    )

    def _check_seen_tables(self) -> None:
        """Check that no two columns keep the values seen before in one table."""
        of_table = {
            (model.name, column): f"seen_{model.name}_{column}"
            for model in self.read_models
            if isinstance(model, Projection)
            for column in model.distinct_columns()
        }
        if double := first_double(of_table.values()):
            first, second = [f"{m}.{c}" for (m, c), t in of_table.items() if folded(t) == folded(double[0])][:2]
            raise ProjectionError(
                f"Domain {self.name}: the count_distinct columns {first} and {second} would keep their values in one "
                f"table, {double[0]}. Rename one of the columns."
            )

    def _bound(self) -> tuple[BoundEndpoint, ...]:
        """Bind views, seeds and endpoints against the empty tables."""
        seeded = [m for m in self.read_models if m.seed is not None]
        if not self.views and not seeded and not self.endpoints:
            return ()
        check_paths(self.name, self.endpoints)
        with scratch_schema() as connection:
            for model in self.read_models:
                connection.execute(create_table_sql(model))
            known = [m.name for m in self.read_models]
            for view in self.views:
                check_view(view, connection, known)
                create_view(view, connection)
                check_created_view(view, connection)
                known.append(view.name)
            for model in seeded:
                _check_seed(model, connection)
            models = {m.name: m for m in self.read_models}
            return tuple(bind(endpoint, models, connection, known) for endpoint in self.endpoints)


def _check_seed(model: ReadModel, connection: duckdb.DuckDBPyConnection) -> None:
    """Bind a seed against the domain's tables.

    A seed that reads its own older table, or a table that the domain no longer has, can be checked only when it is
    used: its own new table is renamed here, so that it does not bind to that one.
    """
    assert model.seed is not None
    connection.execute(f"ALTER TABLE {quote(model.name)} RENAME TO _new")
    try:
        found = types_of(connection, f"FROM ({model.seed}) LIMIT 0")
        check_plan(bound_plan(connection, model.seed), tables=None)
    except duckdb.CatalogException:
        return
    except (SqlError, duckdb.Error) as error:
        raise ProjectionError(f"Read model {model.name}, seed: {first_line(error)}") from error
    finally:
        connection.execute(f"ALTER TABLE _new RENAME TO {quote(model.name)}")
    check_seed_columns(model, found)


def load_domain(name: str) -> Domain:
    """Find a domain by entry-point name, or by dotted path ``package.module:ATTRIBUTE``.

    Raises:
        UsageError: there is no such entry point, module or attribute, or it is not a Domain.

    Example:
        >>> load_domain("refold.warehouse.orders.domain:ORDERS").name
        'orders'
    """
    installed = _installed(tuple(sys.path))
    if name in installed:
        found = installed[name].load()
    elif ":" in name:
        found = _import(name)
    else:
        known = ", ".join(sorted(installed)) or "none"
        raise UsageError(
            f"No domain {name!r} is installed (installed: {known}). Give a dotted path such as "
            "my_shop.domain:SHOP, or declare an entry point in the group refold.domains."
        )
    if not isinstance(found, Domain):
        raise UsageError(
            f"Domain {name} is a {type(found).__name__}; expected a refold.Domain. Name the "
            "variable that holds the Domain, as in my_shop.domain:SHOP."
        )
    return found


@functools.lru_cache(maxsize=1)
def _installed(_path: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    """Return the installed domains by name: a worker asks for each bucket, and a look at all packages takes 15 ms."""
    return {e.name: e for e in entry_points(group=ENTRY_POINT_GROUP)}


def _import(path: str) -> object:
    module_name, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"Domain {path} cannot be loaded: {error}. Check the name given by --domain, "
            "REFOLD_DOMAIN or refold.toml. Run refold in the folder of refold.toml or of the module, or add "
            "that folder to "
            "PYTHONPATH."
        ) from error
