"""One rebuild of the order domain on one runner, as a separate process, so that a caller can kill it after a timeout.

``python -m tests.contracts.rebuild_process LOG READ_MODELS RUNNER [BEAM OPTION]...``
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from apache_beam.options.pipeline_options import PipelineOptions

from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild import replay as replaying
from refold.pipelines.rebuild.rebuild import rebuild
from refold.warehouse.event_log import open_log


@contextmanager
def options_for(runner: str, arguments: Sequence[str]) -> Iterator[PipelineOptions]:
    """Yield the options of a runner; for Dask, start a cluster of two processes for the duration."""
    if runner != "dask":
        yield beam_options(None, arguments)
        return
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        yield beam_options("DaskRunner", [*arguments, f"--dask_client_address={cluster.scheduler_address}"])


def main(log_url: str, read_models_url: str, runner: str, *arguments: str) -> None:
    """Rebuild all read models, and publish them."""
    if runner == "folds_apart":
        replaying._FOLDED_EVENTS_APART = 0
    with options_for(runner, arguments) as options:
        rebuild(open_log(log_url), "orders", read_models_url, options)


if __name__ == "__main__":
    main(*sys.argv[1:])
