"""Settings: files, then environment, then options; found upwards, and refused with the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from refold.event_schemas import UsageError
from refold.pipelines.cli.config import SETTINGS, Origin, Settings, load_settings


def write(path: Path, text: str) -> Path:
    """Write a settings file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_without_any_settings_there_are_defaults(tmp_path: Path) -> None:
    """No domain, and folders below the current one."""
    settings = load_settings({}, {}, tmp_path)
    assert settings == Settings(folder=tmp_path)
    assert (settings.domain, settings.log, settings.read_models, settings.runner) == (
        None,
        "./refold-data/log",
        "./refold-data/read-models",
        None,
    )


def test_each_source_overrides_the_one_before(tmp_path: Path) -> None:
    """File, then environment, then option."""
    write(tmp_path / "refold.toml", 'domain = "a"\nlog = "s3://b/a"\nrunner = "a"\nread_models = "s3://b/ra"')
    environ = {"REFOLD_LOG": "s3://b/b", "REFOLD_RUNNER": "b", "REFOLD_READ_MODELS": ""}
    settings = load_settings({"runner": "c", "log": None}, environ, tmp_path)
    assert (settings.domain, settings.log, settings.runner) == ("a", "s3://b/b", "c")
    assert settings.read_models == "s3://b/ra", "an empty variable counts as unset"
    assert [settings.origin(key) for key in SETTINGS] == [
        Origin.FILE,
        Origin.ENVIRONMENT,
        Origin.DEFAULT,
        Origin.FILE,
        Origin.OPTION,
        Origin.DEFAULT,
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("refold.toml", 'log = "history"'),
        ("refold.toml", '[tool.refold]\nlog = "history"'),
        ("pyproject.toml", '[project]\nname = "shop"\n[tool.refold]\nlog = "history"'),
    ],
)
def test_a_file_is_found_upwards_and_its_paths_are_relative_to_it(tmp_path: Path, name: str, text: str) -> None:
    """The table may be left out in ``refold.toml``; a ``pyproject.toml`` on the way without the table is passed by."""
    write(tmp_path / name, text)
    below = tmp_path / "src" / "shop"
    write(below / "pyproject.toml", '[project]\nname = "other"')
    settings = load_settings({}, {}, below)
    assert settings.log == str(tmp_path / "history")
    assert settings.folder == tmp_path
    assert load_settings({}, {}, tmp_path).log == "./history"


def test_refold_toml_wins_over_pyproject_beside_it(tmp_path: Path) -> None:
    """If a folder has both files, ``refold.toml`` wins."""
    write(tmp_path / "pyproject.toml", '[tool.refold]\ndomain = "a"\nrunner = "x"')
    write(tmp_path / "refold.toml", 'domain = "b"')
    settings = load_settings({}, {}, tmp_path)
    assert (settings.domain, settings.runner) == ("b", None)


@pytest.mark.parametrize("url", ["s3://bucket/log", "/var/log", "~/log", "memory://log"])
def test_urls_absolute_paths_and_home_stay_as_they_are(tmp_path: Path, url: str) -> None:
    """Only a relative path belongs to the file's folder."""
    write(tmp_path / "refold.toml", f'log = "{url}"')
    assert load_settings({}, {}, tmp_path / "below").log == url


def test_a_path_outside_the_current_folder_is_absolute(tmp_path: Path) -> None:
    """``..`` is relative to the file, too."""
    write(tmp_path / "shop" / "refold.toml", 'log = "../log"')
    log = load_settings({}, {}, tmp_path / "shop").log
    assert (tmp_path / "shop" / log).resolve() == tmp_path / "log"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('logg = "x"', "unknown setting 'logg'"),
        ("log = 3", "log is 3"),
        ('log = ""', "log is ''"),
        ("log = ", "is unreadable"),
        ("[tool]\nrefold = 3", "tool.refold is 3"),
    ],
)
def test_an_invalid_file_is_refused_with_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    """A misspelt key must not silently leave the default."""
    file = write(tmp_path / "refold.toml", text)
    with pytest.raises(UsageError, match=message) as caught:
        load_settings({}, {}, tmp_path)
    assert str(file) in str(caught.value)
