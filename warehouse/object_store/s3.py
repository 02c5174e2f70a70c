"""S3 and compatible stores, through s3fs: ``If-None-Match: *`` makes a write conditional.

Two operations call S3 directly: listings, to start after a key, and metadata, to avoid the listing that s3fs adds to
look for folders.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec

from refold.warehouse.object_store.remote import RemoteStore

_MAX_PARTS = 10_000  # S3's limit for a multipart upload
_PART_BYTES = 16 * 2**20
_PARTS_AT_ONCE = 4  # s3fs would hold 10 parts of 50 MB in memory


class S3Store(RemoteStore):
    """Objects in a bucket; endpoint and credentials come from the environment of AWS or fsspec."""

    def _options(self) -> dict[str, Any]:
        # With one transfer at a time s3fs reads an object in one request, without a request for its size.
        options = {**super()._options(), "max_concurrency": 1}
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint and "endpoint_url" not in fsspec.config.conf.get("s3", {}):
            # botocore would find it too, but fsspec caches clients by argument: all endpoints would share one.
            options["endpoint_url"] = endpoint
        if "config_kwargs" not in fsspec.config.conf.get("s3", {}) and "AWS_MAX_ATTEMPTS" not in os.environ:
            # s3fs and ``failures.attempt`` retry. With five attempts of botocore within each of theirs, one read of a
            # store that is down takes 250 requests and minutes.
            options["config_kwargs"] = {"retries": {"total_max_attempts": 1}}
        return options

    def _info(self, key: str) -> dict[str, Any]:
        fs, path = self._locate(key)
        bucket, name, _ = fs.split_path(path)
        head = self._read(key, lambda: fs.call_s3("head_object", Bucket=bucket, Key=name))
        return {"size": head["ContentLength"], "ETag": head["ETag"], "LastModified": head["LastModified"]}

    def _list_below(self, base: str, start_after: str) -> Iterator[str]:
        fs, root = self._connect()
        bucket, folder, _ = fs.split_path(root)
        prefix = f"{folder}/" if folder else ""
        wanted = {"Bucket": bucket, "Prefix": prefix + base}
        if start_after:
            wanted["StartAfter"] = prefix + start_after
        more = True
        while more:
            page = self._attempt(f"list {base!r}", lambda: fs.call_s3("list_objects_v2", **wanted))
            names = (entry["Key"] for entry in page.get("Contents", ()))
            # S3's console creates a name that ends in a slash for a folder.
            yield from (name.removeprefix(prefix) for name in names if not name.endswith("/"))
            if more := page["IsTruncated"]:
                wanted["ContinuationToken"] = page["NextContinuationToken"]

    def _upload(self, path: Path, key: str) -> None:
        fs, remote = self._locate(key)
        part = max(_PART_BYTES, -(-path.stat().st_size // _MAX_PARTS))
        fs.put_file(str(path), remote, chunksize=part, max_concurrency=_PARTS_AT_ONCE)

    def _download(self, key: str, copy: Path) -> None:
        fs, remote = self._locate(key)
        fs.get_file(remote, str(copy), chunksize=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)
