"""Publishing a model folder on local disk: whole at once, by however many runs at the same moment."""

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest

from trainpipe_assets.storage import mirror, model_cache
from trainpipe_assets.storage.artifacts import Artifact, DamagedArtifact, list_artifacts, publish, read_manifest, seal, verify
from trainpipe_assets.storage.disk import refused_by_disk
from trainpipe_assets.storage.mirror import Mirror

RUNS = 8


def sealed(folder: Path, run: int) -> Path:
    """What a run has trained: the same model, and the run's own record of it."""
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights" * 50_000)
    (folder / "training.json").write_text(f'{{"run": {run}}}')
    seal(folder, {"fingerprint": "f" * 32, "labels": ["a", "b"]})
    return folder


def test_runs_that_publish_one_model_at_once_leave_one_whole_model(tmp_path: Path) -> None:
    folders = [sealed(tmp_path / str(run), run) for run in range(RUNS)]
    for attempt in range(5):
        target = tmp_path / "models" / str(attempt)
        start = threading.Barrier(RUNS)
        published: list[Artifact] = []

        def race(folder: Path, target: Path = target, start: threading.Barrier = start, published: list[Artifact] = published) -> None:
            start.wait()
            published.append(publish(folder, str(target)))

        threads = [threading.Thread(target=race, args=(folder,)) for folder in folders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(published) == RUNS, "a run failed"
        assert len({str(dict(artifact.manifest)) for artifact in published}) == 1, "a model was replaced after it could be seen"
        verify(published[0])
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [str(attempt) for attempt in range(5)]


def test_the_remains_of_a_publication_that_was_never_complete_are_replaced(tmp_path: Path) -> None:
    target = tmp_path / "models" / "f"
    target.mkdir(parents=True)
    (target / "model.safetensors").write_bytes(b"half")
    verify(publish(sealed(tmp_path / "model", 1), str(target)))


def test_what_could_not_be_copied_whole_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, copy = sealed(tmp_path / "model", 1), shutil.copyfile

    def fill_the_disk(source: str, target: str, **options: bool) -> None:
        copy(source, target, **options)
        raise OSError(errno.ENOSPC, "No space left on device", target)

    monkeypatch.setattr(shutil, "copyfile", fill_the_disk)
    with pytest.raises(shutil.Error) as caught:
        publish(model, str(tmp_path / "models" / "f"))
    assert "The disk is full" in (refused_by_disk(caught.value) or "")
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("content", ['{"files": ', "[1, 2]", "{}", ""])
def test_a_manifest_that_is_none_is_named_with_what_to_do(tmp_path: Path, content: str) -> None:
    publish(sealed(tmp_path / "one", 1), str(tmp_path / "models" / "a"))
    (tmp_path / "models" / "a" / "manifest.json").write_text(content)
    for read in (read_manifest, lambda uri: list_artifacts(uri.rpartition("/")[0])):
        with pytest.raises(DamagedArtifact, match=r"models/a: its manifest.json is cut off.*delete this folder and run again"):
            read(str(tmp_path / "models" / "a"))


def test_a_model_is_on_the_disk_before_it_can_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, target, forced = sealed(tmp_path / "one", 1), tmp_path / "models" / "a", list[tuple[Path, bool]]()
    monkeypatch.setattr(os, "fsync", lambda number: forced.append((Path(f"/proc/self/fd/{number}").readlink(), target.exists())))
    publish(folder, str(target))
    before = {path.name for path, visible in forced if not visible}
    assert {path.name for path in folder.iterdir()} < before
    assert forced[-1] == (target.parent, True)


def test_a_copy_that_another_process_takes_away_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / name for name in ("kept", ".staging", "other")]
    for folder in folders:
        folder.mkdir()
    is_dir = Path.is_dir

    def then_gone(path: Path) -> bool:
        there = is_dir(path)
        if path.name == ".staging" and there:
            path.rename(tmp_path.parent / f"{tmp_path.name} settled")
        return there

    monkeypatch.setattr(Path, "is_dir", then_gone)
    model_cache.prune(keep=folders[0])
    assert (tmp_path / "other").exists()


def test_a_mirror_goes_on_after_a_folder_that_is_not_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = Mirror(str(tmp_path / "there"))
    monkeypatch.setattr(mirror, "publish", lambda _folder, uri: (_ for _ in ()).throw(DamagedArtifact(uri)))
    copies.keep([sealed(tmp_path / "one", 1)])
    assert copies.settle(30)
    monkeypatch.undo()
    copies.keep([sealed(tmp_path / "two", 2)])
    assert copies.settle(30)
    assert [artifact.uri.rpartition("/")[2] for artifact in copies.complete()] == ["two"]
