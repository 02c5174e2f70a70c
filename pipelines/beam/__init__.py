"""Apache Beam: options, runners, staged pipelines, and the connections that workers share.

Pipelines use ``beam_options``, ``run_staged`` and ``workers_of``; only ``local_runner`` knows Beam's local runner.
"""
