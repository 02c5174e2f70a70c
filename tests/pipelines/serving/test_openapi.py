"""The OpenAPI document is correct: every request generated from it gets a documented response, and never 5xx.

``REFOLD_TEST_OPENAPI_EXAMPLES`` says how many requests are made of each operation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from refold.pipelines.rebuild.rebuild import rebuild
from tests.pipelines.serving.served import Served, served
from tests.pipelines.serving.test_serve import OPTIONS, shop

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("REFOLD_TEST_OPENAPI_EXAMPLES", "8"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with every feature."""
    folder = tmp_path_factory.mktemp("documented")
    rebuild(shop(folder), "orders", str(folder / "read-models"), OPTIONS)
    with served(folder, "--query", "--stream", "--max-wait", "0.02") as running:
        yield running


def test_the_document_is_valid_and_complete(running: Served) -> None:
    """OpenAPI 3.1, with a route for each endpoint and command."""
    document = httpx.get(f"{running.url}/openapi.json").json()
    validate(document)
    paths = document["paths"]
    assert {"/orders/{order_id}", "/customers/{customer_id}/orders", "/reports/revenue", "/query"} <= set(paths)
    assert {"/status", "/healthz", "/readyz", "/metrics", "/commands/PlaceOrder"} <= set(paths)
    assert sum(path.startswith("/commands/") for path in paths) == 11


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_answer_is_documented(running: Served, mode: GenerationMode) -> None:
    """Statuses, media types and documents are as declared; only malformed requests are refused."""
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    wrong: list[str] = []
    for operation in schema.get_all_operations():
        assert isinstance(operation, Ok), operation
        _probe(operation.ok(), mode, wrong)
    assert not wrong, "\n".join(wrong)


def _has_rules(operation: Any) -> bool:
    """Check whether a well-formed request may be refused: by a rule, by DuckDB's grammar, for an invented cursor."""
    return bool(operation.method.upper() == "POST" or "after" in str(operation.definition.raw))


def _probe(operation: Any, mode: GenerationMode, wrong: list[str]) -> None:
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def probe(case: Any) -> None:
        answer = case.call()
        if (
            answer.status_code != 413
        ):  # refused by its size alone, which the check of malformed requests does not expect
            case.validate_response(answer, excluded_checks=[positive_data_acceptance] if _has_rules(operation) else [])

    try:
        probe()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, operation.label  # it takes nothing that could be malformed
    except BaseException as error:
        wrong.append(f"{operation.label}: {error}"[:3000])
