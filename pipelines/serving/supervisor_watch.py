"""A worker process stops with its supervisor: nobody else stops it if the supervisor was killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def stop_with_parent() -> None:
    """Stop this process in order when its parent process ends; do nothing in a process without such a parent."""
    if (parent := multiprocessing.parent_process()) is None:
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent watch", daemon=True).start()
