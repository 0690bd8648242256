"""Publishing a model folder on local disk: whole at once, by however many runs at the same moment."""

import errno
import shutil
import threading
from pathlib import Path

import pytest

from trainpipe_assets.storage.artifacts import Artifact, publish, seal, verify
from trainpipe_assets.storage.disk import refused_by_disk

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
