"""The files to import: found, identified by their content, and checked for changes."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import fsspec
import fsspec.core

from refold.event_schemas import UsageError
from refold.pipelines.ingest.compression import COMPRESSED_SUFFIXES, member_of
from refold.pipelines.ingest.formats import FORMATS
from refold.pipelines.ingest.mapping import ColumnMapping
from refold.pipelines.ingest.source_file import SourceFile, is_local, locate

_HASHED_BLOCK = 8 << 20


def expand_patterns(names: Sequence[str]) -> list[str]:
    """Replace patterns such as ``s3://bucket/*.parquet`` by the files that they match, sorted.

    Raises:
        UsageError: no file was named, or a pattern matches none.
    """
    files: list[str] = []
    for name in names:
        if not any(sign in name for sign in "*[") or os.path.exists(name):
            files.append(name)
            continue
        fs, path = fsspec.core.url_to_fs(name)
        matches = sorted(fs.glob(path))
        if not matches:
            raise UsageError(f"No file matches {name!r}. Check the pattern and the current folder.")
        files += matches if "://" not in name else [fs.unstrip_protocol(m) for m in matches]
    if not files:
        raise UsageError("There is no file to import: name at least one.")
    return files


def inspect(name: str, *, format: str | None, report: Callable[[int, int], None]) -> SourceFile:
    """Find a file, its format, and the identity of its content.

    A local file is identified by a hash of all its bytes, so that a copy of it is the same import. So is a remote one
    that has no ETag.

    Args:
        name: a path, or a URL that fsspec knows.
        format: one of ``FORMATS``; None: by the file's suffix.
        report: called with bytes read and bytes in all.

    Raises:
        UsageError: there is no such file, or its format is unknown.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"The format {format!r} is not known; known are {', '.join(FORMATS)}.")
    fs, path = locate(name)
    size, stamp, etag = _stat(fs, path)
    file = SourceFile(
        name=name,
        url=path if is_local(fs) else fs.unstrip_protocol(path),
        format=format or _format_by_suffix(name, lambda: _name_in_archive(fs, path)),
        cloudevents=False,
        size=size,
        identity="",
        stamp=stamp,
    )
    if (detect := FORMATS[file.format].detect) is not None:
        format, cloudevents = detect(file)
        file = dataclasses.replace(file, format=format, cloudevents=cloudevents)
    return dataclasses.replace(file, identity=f"{size}-{etag}" if etag else _content_hash(file, report))


def for_file(source: SourceFile, mapping: ColumnMapping) -> tuple[SourceFile, ColumnMapping]:
    """Return a file as the mapping says that it is read, and the mapping with the file's delimiter."""
    if mapping.rows and source.format == "jsonl":
        source = dataclasses.replace(source, format="json")
    delimiter = mapping.delimiter or ("\t" if ".tsv" in source.name.lower() else ",")
    return source, dataclasses.replace(mapping, delimiter=delimiter)


def check_unchanged(file: SourceFile) -> None:
    """Check that a file is what it was when it was inspected.

    Raises:
        UsageError: it was written to.
    """
    fs, path = locate(file.url)
    if _stat(fs, path)[1] != file.stamp:
        raise UsageError(
            f"{file.name} changed while it was read, so its rows may be half old and half new. Nothing was published: "
            "run the import again when the file is complete."
        )


def _stat(fs: Any, path: str) -> tuple[int, str, str]:
    """Return size, stamp and ETag (empty if there is none)."""
    try:
        if is_local(fs):
            status = os.stat(path)
            if os.path.isdir(path):
                raise IsADirectoryError(path)
            return status.st_size, f"{status.st_size} {status.st_mtime_ns} {status.st_ino}", ""
        fs.invalidate_cache()
        info = fs.info(path)
        if info["type"] == "directory":
            raise IsADirectoryError(path)
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {path!r}. Check the path and the current folder.") from error
    except IsADirectoryError as error:
        raise UsageError(f"{path!r} is a folder; give its files, as in {path}/*.parquet.") from error
    except OSError as error:
        raise UsageError(f"{path!r} cannot be read: {error.strerror or error}.") from error
    etag = next((str(info[k]) for k in ("ETag", "etag", "md5Hash", "content_md5") if info.get(k)), "").strip('"')
    written = next(
        (str(info[k]) for k in ("LastModified", "last_modified", "mtime", "updated", "created") if k in info), ""
    )
    return int(info["size"]), f"{info['size']} {etag} {written}", etag


def _name_in_archive(fs: Any, path: str) -> str:
    """Return the name of the file in a ZIP archive; empty if it is none."""
    with fs.open(path, "rb") as raw:
        if raw.read(4) != b"PK\x03\x04":
            return ""
        return member_of(zipfile.ZipFile(raw))


def _format_by_suffix(name: str, name_inside: Callable[[], str] = str) -> str:
    stem = name.lower()
    if stem.endswith(".zip") and not os.path.splitext(stem.removesuffix(".zip"))[1]:
        stem = name_inside().lower()
    for suffix in COMPRESSED_SUFFIXES:
        stem = stem.removesuffix(suffix)
    for format, known in FORMATS.items():
        if os.path.splitext(stem)[1] in known.suffixes:
            return format
    raise UsageError(f"{name}: its suffix is that of no format. Give --format, one of {', '.join(FORMATS)}.")


def _content_hash(file: SourceFile, report: Callable[[int, int], None]) -> str:
    fs, path = locate(file.url)
    digest = hashlib.sha256()
    with fs.open(path, "rb") as raw:
        done = 0
        while block := raw.read(_HASHED_BLOCK):
            digest.update(block)
            done += len(block)
            report(done, file.size)
    return digest.hexdigest()
