"""A log, its archive and its read models in one place, which can be put back as it was."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import fsspec

from refold.warehouse.event_log import EventLog, open_log
from refold.warehouse.read_models.generations.generations import Generations, open_generations


@dataclass(frozen=True, slots=True)
class Place:
    """A log, its archive and its read models.

    Attributes:
        url: the URL below which they are.
    """

    url: str

    @property
    def log(self) -> EventLog:
        """Open the log."""
        return open_log(f"{self.url}/log")

    @property
    def archive(self) -> str:
        """URL of the archive."""
        return f"{self.url}/archive"

    @property
    def read_models(self) -> str:
        """URL of the read models."""
        return f"{self.url}/read-models"

    @property
    def generations(self) -> Generations:
        """The published read models."""
        return open_generations(self.read_models, "shop")


class Saved:
    """The objects of a place, to be put back before each case."""

    def __init__(self, place: Place, copy: Path) -> None:
        self._place, self._copy = place, copy
        self._store, self._root = fsspec.core.url_to_fs(place.url, use_listings_cache=False)
        self._objects: dict[str, bytes] = {}
        if self._is_local:
            shutil.copytree(place.url, copy, symlinks=True)
        else:
            self._objects = self._store.cat(self._store.find(self._root))

    @property
    def _is_local(self) -> bool:
        return "://" not in self._place.url

    def put_back(self) -> None:
        """Put them back, and remove all others."""
        if self._is_local:
            shutil.rmtree(self._place.url)
            shutil.copytree(self._copy, self._place.url, symlinks=True)
            return
        found = {name: info["ETag"].strip('"') for name, info in self._store.find(self._root, detail=True).items()}
        for name in found.keys() - self._objects.keys():  # one by one: localbucket cannot delete many
            self._store.rm_file(name)
        wanted = {n: o for n, o in self._objects.items() if found.get(n) != hashlib.md5(o).hexdigest()}
        if wanted:
            self._store.pipe(wanted)
