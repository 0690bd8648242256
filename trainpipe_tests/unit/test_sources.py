"""Listing the landing folder: what counts as a file, what its version is, and when it has settled."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import polars as pl
import pytest

from trainpipe_assets.data import ingestion
from trainpipe_assets.data.reading.readers import content_id, read_file
from trainpipe_assets.data.sources import (
    UNLISTABLE,
    UNOPENABLE,
    FileChangedWhileReading,
    LandedFile,
    file_kind,
    list_landed,
    split_settled,
    wait_until_settled,
)
from trainpipe_assets.settings import SourceSettings
from trainpipe_assets.storage.delta import Table, find
from trainpipe_tests.unit.landed_files import NOW, land_bytes, read_bytes, whole_file_problem
from trainpipe_tests.unprivileged import as_nobody, folder_for_everyone

SETTINGS = SourceSettings()
GOOD = b"text,label\nfine,pos\n"


def paths(folder: Path) -> list[str]:
    return [file.path for file in list_landed(str(folder), SETTINGS)]


def age(path: Path, seconds: float, now: float = 1_000_000.0) -> None:
    os.utime(path, (now - seconds, now - seconds))


def test_files_are_listed_recursively_and_sorted_by_path(tmp_path: Path) -> None:
    for name in ("b.csv", "a/z.jsonl", "a/b/c.parquet", "a.tsv"):
        land_bytes(tmp_path, name, GOOD)
    assert paths(tmp_path) == ["a.tsv", "a/b/c.parquet", "a/z.jsonl", "b.csv"]


@pytest.mark.parametrize("name", [".hidden.csv", "_SUCCESS", "a.csv.tmp", "a.csv.part", "a.csv.crdownload", ".a.csv.swp", "A.CSV.TMP"])
def test_hidden_and_unfinished_files_are_not_arrivals(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(GOOD)
    assert paths(tmp_path) == []


def test_what_lies_in_hidden_folders_is_not_an_arrival(tmp_path: Path) -> None:
    for folder in (".git", "_temporary"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.csv").write_bytes(GOOD)
    assert paths(tmp_path) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"landing folder .*/nowhere is not a folder: it does not exist. Create it, or correct source.uri"):
        list_landed(str(tmp_path / "nowhere"), SETTINGS)


def test_a_file_is_no_landing_folder(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(GOOD)
    with pytest.raises(ValueError, match="it is a file"):
        list_landed(str(tmp_path / "a.csv"), SETTINGS)


def test_the_version_tells_size_and_times(tmp_path: Path) -> None:
    file = land_bytes(tmp_path, "a.csv", GOOD)
    status = (tmp_path / "a.csv").stat()
    assert (file.size, file.version, file.modified) == (
        len(GOOD),
        f"{len(GOOD)}-{status.st_mtime_ns}-{status.st_ctime_ns}",
        status.st_mtime,
    )
    age(tmp_path / "a.csv", 50)
    assert list_landed(str(tmp_path), SETTINGS)[0].version != file.version


@pytest.mark.parametrize(
    "name",
    [
        "with space.csv",
        "ünïcödé 数据 😀.csv",
        "semi;colon&amp#hash?.csv",
        "a::b.csv",
        "per%20cent.csv",
        "star*[x].csv",
        "quote'\".csv",
        "new\nline.csv",
        "back\\slash.csv",
        "n" * 250 + ".csv",
    ],
)
def test_odd_names_are_listed_and_read(tmp_path: Path, name: str) -> None:
    rows = read_bytes(tmp_path, name, GOOD)
    assert rows["text"].to_list() == ["fine"]


def test_a_name_that_is_not_utf8_is_spelled_out_and_read(tmp_path: Path) -> None:
    with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9.csv"), "wb") as file:  # noqa: PTH118 # a name of bytes
        file.write(GOOD)
    (listed,) = list_landed(str(tmp_path), SETTINGS)
    assert listed.path == "caf\\xe9.csv"
    assert next(iter(read_file(listed, SETTINGS, NOW)))["source_file"].to_list() == ["caf\\xe9.csv"]


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "_versions").mkdir()
    (tmp_path / "_versions" / "1.csv").write_bytes(GOOD)
    (tmp_path / "current.csv").symlink_to("_versions/1.csv")
    (file,) = list_landed(str(tmp_path), SETTINGS)
    assert (file.path, file.size, file.problem) == ("current.csv", len(GOOD), None)
    assert next(iter(read_file(file, SETTINGS, NOW)))["text"].to_list() == ["fine"]


def test_a_link_that_leaves_the_folder_is_a_problem_and_is_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_bytes(b"text,label\nsecret,pos\n")
    landing = tmp_path / "landing"
    landing.mkdir()
    (landing / "a.csv").symlink_to(secret)
    (landing / "folder").symlink_to(tmp_path)
    files = list_landed(str(landing), SETTINGS)
    assert [file.path for file in files] == ["a.csv", "folder"]
    for file in files:
        (rows,) = read_file(file, SETTINGS, NOW)
        assert whole_file_problem(rows).startswith("a link that leaves the landing folder is not followed")
        assert rows["text"].to_list() == [None]


def test_a_sibling_whose_name_begins_like_the_folder_is_outside(tmp_path: Path) -> None:
    (tmp_path / "land").mkdir()
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "a.csv").write_bytes(GOOD)
    (tmp_path / "land" / "a.csv").symlink_to(tmp_path / "landing" / "a.csv")
    assert "leaves the landing folder" in str(list_landed(str(tmp_path / "land"), SETTINGS)[0].problem)


def test_a_broken_link_and_a_pipe_are_problems(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to(tmp_path / "missing.csv")
    os.mkfifo(tmp_path / "b.csv")
    first, second = list_landed(str(tmp_path), SETTINGS)
    assert "a link to nothing" in str(first.problem)
    assert "not a regular file" in str(second.problem)
    assert content_id(second)  # does not open it: that would wait for ever


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    land_bytes(tmp_path, "a/x.csv", GOOD)
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    assert "a/x.csv" in paths(tmp_path)
    assert len(paths(tmp_path)) == 2


def test_a_landing_folder_may_itself_be_a_link(tmp_path: Path) -> None:
    land_bytes(tmp_path / "real", "a.csv", GOOD)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert [(file.path, file.problem) for file in list_landed(str(tmp_path / "link"), SETTINGS)] == [("a.csv", None)]


def test_a_file_without_permission_is_a_problem_until_it_is_granted(everyones: Path) -> None:
    before = land_bytes(everyones, "a.csv", GOOD)
    (everyones / "a.csv").chmod(0)
    (denied,) = listed_without_privileges(everyones)
    assert "permission denied" in str(denied.problem)
    assert denied.version != before.version
    (everyones / "a.csv").chmod(0o644)
    assert [file.problem for file in listed_without_privileges(everyones)] == [None]


def test_an_unknown_format_is_a_problem_that_says_what_is_known(tmp_path: Path) -> None:
    problem = whole_file_problem(read_bytes(tmp_path, "report.xlsx", b"PK"))
    assert problem.startswith(
        "unknown file format (.xlsx); known are .csv .tsv .json .jsonl .ndjson .parquet .txt, each also with .gz or .zst"
    )
    assert "source.format" in problem
    assert "(no ending)" in str(land_bytes(tmp_path, "README", b"").problem)


@pytest.mark.parametrize(
    ("name", "format", "expected"),
    [
        ("a.csv", "auto", ("csv", None)),
        ("A.CSV.GZ", "auto", ("csv", "gz")),
        ("a.ndjson.zst", "auto", ("jsonl", "zst")),
        ("a.txt", "tsv", ("tsv", None)),
        ("a.gz", "jsonl", ("jsonl", "gz")),
        ("a.csv", "jsonl", ("jsonl", None)),
    ],
)
def test_the_name_tells_the_format_unless_it_is_set(name: str, format: str, expected: tuple[str, str | None]) -> None:
    kind = file_kind(name, SourceSettings.model_validate({"format": format}))
    assert kind is not None
    assert (kind.format, kind.compression) == expected


def test_young_files_and_files_of_the_future_are_unsettled() -> None:
    files = [LandedFile(name, name, 1, "1", when) for name, when in (("old", 90.0), ("edge", 98.0), ("young", 98.1), ("future", 200.0))]
    settled, unsettled = split_settled(files, 100.0, 2.0)
    assert [file.path for file in settled] == ["old", "edge"]
    assert [file.path for file in unsettled] == ["young", "future"]


def test_settled_files_are_not_waited_for(tmp_path: Path) -> None:
    land_bytes(tmp_path, "a.csv", GOOD)
    age(tmp_path / "a.csv", 100)
    files = list_landed(str(tmp_path), SETTINGS)

    def never(seconds: float) -> None:
        raise AssertionError

    assert wait_until_settled(str(tmp_path), files, SETTINGS, now=1_000_000.0, sleep=never) == (files, [])


def test_a_file_that_keeps_growing_is_told_from_one_that_is_complete(tmp_path: Path) -> None:
    for name in ("complete.csv", "growing.csv", "leaving.csv", "old.csv"):
        land_bytes(tmp_path, name, GOOD)
        age(tmp_path / name, 100 if name == "old.csv" else -50)
    files = list_landed(str(tmp_path), SETTINGS)
    slept: list[float] = []

    def meanwhile(seconds: float) -> None:
        slept.append(seconds)
        (tmp_path / "growing.csv").write_bytes(GOOD * 2)
        (tmp_path / "leaving.csv").unlink()
        (tmp_path / "arriving.csv").write_bytes(GOOD)

    ready, growing = wait_until_settled(str(tmp_path), files, SETTINGS, now=1_000_000.0, sleep=meanwhile)
    assert slept == [SETTINGS.settle_seconds]
    assert [file.path for file in ready] == ["complete.csv", "old.csv"]
    assert [(file.path, file.size) for file in growing] == [("growing.csv", 2 * len(GOOD))]


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    content = b"text,label\n" + b"some text,pos\n" * 400_000
    file = land_bytes(tmp_path, "a.csv", content)
    batches = read_file(file, SETTINGS, NOW)
    next(batches)
    with (tmp_path / "a.csv").open("ab") as more:
        more.write(b"more,neg\n")
    with pytest.raises(FileChangedWhileReading, match=r"a.csv changed while it was being read .*nothing of it was kept"):
        list(batches)


def test_a_broken_file_that_was_replaced_meanwhile_is_not_called_broken(tmp_path: Path) -> None:
    file = land_bytes(tmp_path, "a.csv", b"")
    (tmp_path / "a.csv").write_bytes(GOOD)
    with pytest.raises(FileChangedWhileReading):
        list(read_file(file, SETTINGS, NOW))


def test_a_file_that_went_away_is_not_a_bad_file(tmp_path: Path) -> None:
    file = land_bytes(tmp_path, "a.csv", GOOD)
    (tmp_path / "a.csv").unlink()
    with pytest.raises(FileChangedWhileReading, match="went away"):
        list(read_file(file, SETTINGS, NOW))


def test_the_id_follows_content_and_path_and_nothing_else(tmp_path: Path) -> None:
    first = content_id(land_bytes(tmp_path, "a.csv", GOOD))
    age(tmp_path / "a.csv", 1000)
    assert content_id(list_landed(str(tmp_path), SETTINGS)[0]) == first
    assert content_id(land_bytes(tmp_path / "other machine", "a.csv", GOOD)) == first
    assert content_id(land_bytes(tmp_path, "b.csv", GOOD)) != first
    assert content_id(land_bytes(tmp_path, "a.csv", GOOD + b"more,neg\n")) != first
    assert len(first) == 16
    assert read_bytes(tmp_path, "a.csv", GOOD)["file_id"].to_list() == [first]


@pytest.fixture
def bucket() -> Iterator[str]:
    filesystem = fsspec.filesystem("memory")
    yield "memory://bucket/prefix"
    if filesystem.exists("/bucket"):
        filesystem.rm("/bucket", recursive=True)


def test_an_object_store_is_listed_and_read_alike(bucket: str) -> None:
    filesystem = fsspec.filesystem("memory")
    for key in ("a.csv", "deep/odd name::x?#.csv", "_SUCCESS", "_temporary/b.csv", "deep/.hidden.csv", "c.part", "d.pdf"):
        filesystem.pipe_file(f"/bucket/prefix/{key}", GOOD)
    files = list_landed(bucket, SETTINGS)
    assert [file.path for file in files] == ["a.csv", "d.pdf", "deep/odd name::x?#.csv"]
    assert [file.problem is None for file in files] == [True, False, True]
    for file in (files[0], files[2]):
        (rows,) = read_file(file, SETTINGS, NOW)
        assert rows["text"].to_list() == ["fine"]


def test_an_object_that_changes_is_noticed(bucket: str) -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/bucket/prefix/a.csv", GOOD)
    (file,) = list_landed(bucket, SETTINGS)
    filesystem.pipe_file("/bucket/prefix/a.csv", GOOD + b"x,y\n")
    with pytest.raises(FileChangedWhileReading):
        list(read_file(file, SETTINGS, NOW))
    filesystem.rm("/bucket/prefix/a.csv")
    with pytest.raises(FileChangedWhileReading):
        list(read_file(file, SETTINGS, NOW))


def test_a_file_that_changes_under_the_eyes_is_pending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    land_bytes(tmp_path, "a.csv", GOOD)
    (file,) = list_landed(str(tmp_path), SETTINGS)

    def changed(file: LandedFile) -> str:
        raise FileChangedWhileReading(file.path)

    monkeypatch.setattr(ingestion, "content_id", changed)
    assert ingestion.pending([file], None) == (file,)


def test_a_column_that_no_file_has_is_a_wrong_setting(tmp_path: Path) -> None:
    for name, content in (("a.csv", GOOD), ("b.jsonl", b'{"body": "x", "label": "pos"}\n')):
        land_bytes(tmp_path, name, content)
    landed = list_landed(str(tmp_path), SETTINGS)
    ingestion.ingest(str(tmp_path / "t"), None, landed, frozenset(), SETTINGS, NOW)
    said = r"source.text_column is 'boddy', and none of the 2 file\(s\) landed has such a column; there are: body, label, text"
    with pytest.raises(ValueError, match=said):
        ingestion.ingest(str(tmp_path / "t"), None, landed, frozenset(), SETTINGS.model_copy(update={"text_column": "boddy"}), NOW)


@pytest.fixture
def everyones() -> Iterator[Path]:
    with folder_for_everyone() as folder:
        yield folder


def listed_without_privileges(folder: Path) -> list[LandedFile]:
    return as_nobody(lambda: list_landed(str(folder), SETTINGS))


@pytest.mark.parametrize("mode", [0, 0o444, 0o111])
def test_a_landing_folder_that_cannot_be_listed_is_not_an_empty_one(everyones: Path, mode: int) -> None:
    land_bytes(everyones, "a.csv", GOOD)
    everyones.chmod(mode)
    with pytest.raises(ValueError, match=r"the landing folder .* cannot be listed: permission denied"):
        listed_without_privileges(everyones)


def test_a_link_into_a_folder_that_may_not_be_entered_is_none_to_nothing(everyones: Path) -> None:
    land_bytes(everyones, "sub/b.csv", GOOD)
    (everyones / "a.csv").symlink_to("sub/b.csv")
    (everyones / "sub").chmod(0)
    found = {file.path: file.problem for file in listed_without_privileges(everyones)}
    (everyones / "sub").chmod(0o755)
    assert found == {"a.csv": UNOPENABLE, "sub": UNLISTABLE}


def test_a_table_is_not_made_anew_without_a_file_that_is_being_written_to(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        land_bytes(tmp_path / "landing", name, GOOD)
    uri, landed = str(tmp_path / "t"), list_landed(str(tmp_path / "landing"), SETTINGS)
    ingestion.ingest(uri, None, landed, frozenset(), SETTINGS, NOW).increment.commit({})
    other, growing = SETTINGS.model_copy(update={"encoding": "latin-1"}), frozenset({"b.csv"})
    assert ingestion.ingest(uri, find(uri), landed, growing, SETTINGS, NOW).increment.empty
    with pytest.raises(FileChangedWhileReading, match=r"is to be made anew, and 1 file\(s\) that it came from are being written to: b.csv"):
        ingestion.ingest(uri, find(uri), landed, growing, other, NOW)
    assert not ingestion.ingest(uri, find(uri), landed, frozenset(), other, NOW).increment.empty


@dataclass(frozen=True)
class Landing:
    """A landing folder, and the table that it is ingested to as by a user whom permissions stop."""

    folder: Path

    def ingest(self, settings: SourceSettings = SETTINGS) -> ingestion.Arrivals:
        landed, table, uri = listed_without_privileges(self.folder / "landing"), self.table, str(self.folder / "raw")
        arrivals = ingestion.find_arrivals(landed, table)
        done = ingestion.ingest(uri, table, landed, frozenset(), settings, NOW)
        assert done.barred == arrivals.barred
        done.increment.commit({})
        return arrivals

    @property
    def table(self) -> Table | None:
        return find(str(self.folder / "raw"))

    def files(self, *, usable: bool = True) -> list[str]:
        """Whose records the table holds, or whose problems."""
        assert self.table is not None
        return sorted(self.table.scan().filter(pl.col("problem").is_null() == usable).collect()["source_file"])


@pytest.fixture
def landing(everyones: Path) -> Landing:
    for name in ("a.csv", "sub/b.csv", "sub/deep/c.csv", "subway.csv"):
        land_bytes(everyones / "landing", name, f"text,label\n{name} is fine,x\n".encode())
    place = Landing(everyones)
    assert len(place.ingest().new) == 4
    return place


@pytest.mark.parametrize("mode", [0, 0o444, 0o111])
def test_what_came_from_a_folder_that_cannot_be_listed_now_stays(landing: Landing, mode: int) -> None:
    (landing.folder / "landing" / "subway.csv").unlink()
    (landing.folder / "landing" / "sub").chmod(mode)
    arrivals = landing.ingest()
    assert arrivals.withdrawn == ("subway.csv",)
    assert arrivals.barred == ("sub/b.csv", "sub/deep/c.csv")
    assert landing.files() == ["a.csv", "sub/b.csv", "sub/deep/c.csv"]
    assert landing.files(usable=False) == ["sub"]
    (landing.folder / "landing" / "sub").chmod(0o755)
    assert landing.ingest().withdrawn == ("sub",)


def test_what_came_from_a_file_that_cannot_be_opened_now_stays(landing: Landing) -> None:
    path = landing.folder / "landing" / "a.csv"
    path.chmod(0)
    arrivals = landing.ingest()
    assert (arrivals.new, arrivals.withdrawn, arrivals.barred) == ((), (), ("a.csv",))
    assert landing.files() == ["a.csv", "sub/b.csv", "sub/deep/c.csv", "subway.csv"]
    path.chmod(0o644)
    assert landing.ingest().barred == ()
    path.unlink()
    assert landing.ingest().withdrawn == ("a.csv",)


def test_what_cannot_be_read_now_is_not_lost_when_all_is_read_anew(landing: Landing) -> None:
    (landing.folder / "landing" / "a.csv").chmod(0)
    (landing.folder / "landing" / "sub").chmod(0)
    other = SourceSettings(delimiter=",")
    with pytest.raises(ValueError, match=r"3 file\(s\) that it came from cannot be read now, permission denied: a\.csv, sub/b\.csv"):
        landing.ingest(other)
    assert len(landing.files()) == 4
    (landing.folder / "landing" / "a.csv").chmod(0o644)
    (landing.folder / "landing" / "sub").chmod(0o755)
    landing.ingest(other)
    assert len(landing.files()) == 4


def test_a_file_that_is_new_need_not_be_read_to_know_that_it_is_pending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    land_bytes(tmp_path, "a.csv", b"text,label\na,b\n")
    monkeypatch.setattr(ingestion, "content_id", lambda file: pytest.fail(f"{file.path} was read"))
    landed = list_landed(str(tmp_path), SourceSettings())
    assert list(ingestion.pending(landed, None)) == landed
