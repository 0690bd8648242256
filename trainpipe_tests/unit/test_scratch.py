"""Scratch folders go when their step ends, however it ends."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from trainpipe_assets.storage.scratch import is_held, scratch_folder

PATIENCE_SECONDS = 60.0
HOLDER = """
import sys, time
from pathlib import Path
from trainpipe_assets.storage.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "part.parquet").write_text("rows")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_a_folder_goes_with_all_that_is_in_it_also_after_an_error(tmp_path: Path) -> None:
    def step() -> None:
        with scratch_folder(tmp_path / "scratch") as folder:
            (folder / "deep").mkdir()
            (folder / "deep" / "part.parquet").write_text("rows")
            raise ValueError("a step failed")

    with pytest.raises(ValueError, match="a step failed"):
        step()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_is_of_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / "step-of-another"
    left.mkdir()
    (left / "lock").touch()
    monkeypatch.setattr(FileLock, "acquire", refused)
    assert is_held(left)
    monkeypatch.undo()
    assert not is_held(left)


def refused(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_what_a_killed_step_left_goes_with_the_next_one_and_what_another_one_uses_stays(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as used:
        killed = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        try:
            assert killed.stdout is not None
            left = Path(killed.stdout.readline().strip())
            assert (left / "part.parquet").is_file()
            with scratch_folder(tmp_path):
                assert left.is_dir()
        finally:
            killed.send_signal(signal.SIGKILL)
            killed.wait(PATIENCE_SECONDS)
        assert (left / "part.parquet").is_file()
        with scratch_folder(tmp_path) as other:
            assert not left.exists()
            assert other != used
        assert used.is_dir()


def test_checkpoints_of_a_training_beside_it_stay(tmp_path: Path) -> None:
    (tmp_path / "0123abcd" / "checkpoints").mkdir(parents=True)
    with scratch_folder(tmp_path):
        pass
    assert (tmp_path / "0123abcd" / "checkpoints").is_dir()
