"""``refold schemas`` and ``refold generations``."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import duckdb

from refold.warehouse.orders import ORDERS
from refold.warehouse.read_models.generations.generations import open_generations
from tests.pipelines.cli.running import HALF, Call, answer, append


def test_schemas_list_says_what_old_events_become(call: Call, made: Path) -> None:
    """Each shape, by which upcaster, with its fields."""
    found = answer(call("schemas", "list", "--json", folder=made))["schemas"]
    by_schema_key = {(s["event_type"], s["schema_version"]): s for s in found}
    assert set(by_schema_key) == set(ORDERS.registry.schema_keys)
    assert by_schema_key["OrderPlaced", 1]["becomes"] == ["OrderPlaced v2"]
    assert by_schema_key["OrderDispatched", 1]["becomes"] == ["OrderShipped v1"]
    assert by_schema_key["StreetChanged", 1] == {
        "event_type": "StreetChanged",
        "schema_version": 1,
        "newest": False,
        "becomes": ["ShippingAddressUpdated v1"],
        "upcaster": "join_address",
        "form": "merge",
        "fields": [{"name": "street", "type": "string", "nullable": False}],
    }
    assert by_schema_key["OrderPlaced", 3]["newest"]


def test_dry_run_counts_what_upcasters_make_of_the_log(call: Call, shop: Path) -> None:
    """A dry run counts no invalid event, until the log has one that an upcaster rejects."""
    document = answer(call("schemas", "dry-run", "--json", folder=shop))
    assert document["invalid"] == 0
    append(shop, HALF, stream_id="order-half")
    document = answer(call("schemas", "dry-run", "--json", folder=shop, code=1))
    assert document["invalid"] == 1
    assert "CityChanged is missing" in call("schemas", "dry-run", folder=shop, code=1).stdout


def test_generations_list_and_show(call: Call, made: Path, tmp_path: Path) -> None:
    """``list`` has a row per generation, ``show`` a row per read model; an empty list is no error."""
    [generation] = answer(call("generations", "list", "--json", folder=made))["generations"]
    assert generation["number"] == 1
    assert generation["bytes"] > 0
    assert generation["tables"].keys() == {m.name for m in ORDERS.read_models}
    columns, row = call("generations", "list", folder=made).stdout.splitlines()
    assert columns.endswith("read models  rows")
    assert row.split()[-2:] == [str(len(ORDERS.read_models)), f"{sum(generation['tables'].values()):,}"]
    assert answer(call("generations", "show", "--json", folder=made)) == generation
    shown = call("generations", "show", "1", folder=made).stdout
    assert shown.startswith("Generation 1 (rebuild) at position")
    assert re.search(rf"^order_summary +{generation['tables']['order_summary']:,}$", shown, re.MULTILINE)
    assert "no generation 7" in call("generations", "show", "7", folder=made, code=1).stderr
    empty = ["generations", "list", "--read-models", str(tmp_path)]
    assert answer(call(*empty, "--json", folder=made)) == {"generations": []}
    assert "Nothing is published" in call(*empty, folder=made).stdout


def test_generations_are_compared_rolled_back_and_collected(call: Call, shop: Path) -> None:
    """A generation with changed rows is compared, rolled back, and collected."""
    published = open_generations(str(shop / "read-models"), "orders")
    first = published.newest()
    assert first is not None
    path = published.working_copy(first, shop)
    with duckdb.connect(str(path)) as connection:
        [(sku, on_hand)] = connection.execute("FROM (SELECT sku, on_hand FROM inventory_status) LIMIT 1").fetchall()
        connection.execute("UPDATE inventory_status SET on_hand = on_hand + 1 WHERE sku = ?", [sku])
    file, size = published.upload(path)
    assert published.publish(dataclasses.replace(first, number=2, file=file, bytes=size, parent=1))

    document = answer(call("generations", "diff", "1", "2", "--json", folder=shop))
    [difference] = document["differences"]
    example = {"key": {"sku": sku}, "a": {"on_hand": on_hand}, "b": {"on_hand": on_hand + 1}}
    assert difference["by_column"]["on_hand"] == 1
    assert example["a"].items() <= difference["examples"][0]["a"].items()
    assert f"{sku}" in call("generations", "diff", "1", "2", folder=shop).stdout
    assert "hold the same rows" in call("generations", "diff", "2", "2", folder=shop).stdout

    assert answer(call("generations", "rollback", "--json", folder=shop))["shows"] == 1
    assert "rollback to 1" in call("generations", "list", folder=shop).stdout
    assert "Published generation 4, which is generation 2 again" in call("generations", "rollback", folder=shop).stdout
    call("generations", "rollback", "1", folder=shop)

    ages = ("--keep", "1", "--min-age", "0s")
    assert "nothing to remove" in call("generations", "gc", folder=shop).stdout
    planned = answer(call("generations", "gc", *ages, "--json", folder=shop))
    assert (planned["done"], planned["generations"], planned["bytes"]) == (False, [1, 2, 3, 4], size)
    assert "Nothing is removed without --yes" in call("generations", "gc", *ages, folder=shop).stdout
    assert len(published.all()) == 5
    assert "Removed generations: 1, 2, 3, 4; 1 object" in call("generations", "gc", *ages, "--yes", folder=shop).stdout
    assert [g.number for g in published.all()] == [5]
    assert "no log at" in call("generations", "gc", "--log", str(shop / "nowhere"), folder=shop).stderr
