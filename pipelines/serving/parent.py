"""The supervisor of several workers, as a worker sees it: nobody tells it to end if the supervisor was killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def end_with_parent() -> None:
    """Let a worker end in order when its supervisor is gone, which may have been killed; elsewhere it does nothing."""
    if (parent := multiprocessing.parent_process()) is None:
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent watch", daemon=True).start()
