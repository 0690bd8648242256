"""The program for real: as a child process, killed and resumed, stopped by signals, under torchrun and under Dagster Pipes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_pipes import encode_param

from trainpipe_assets.pipeline import launcher
from trainpipe_assets.storage.s3_problems import S3Unreachable
from trainpipe_assets.training.complaint import Complaint, note, taken
from trainpipe_assets.training.durable import PARTIAL
from trainpipe_assets.training.loop import run
from trainpipe_assets.training.ranks import _as_failed
from trainpipe_assets.training.spec import TrainSpec, save_spec
from trainpipe_assets.training.state import TrainingState
from trainpipe_tests.unit.training_fixtures import make_rows, make_spec, write_dataset, write_tiny_base

PROGRAM = ("-m", "trainpipe_assets.training")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *PROGRAM)
RANKS = ("-m", "trainpipe_assets.training.ranks", "2")
LONG_ENOUGH = {"training": {"epochs": 4}}  # to be met by three signals, whenever this process gets its turn
PATIENCE_SECONDS = 400  # a bound, not a wish: met by a machine ten times slower than a laptop


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    write_tiny_base(folder / "base")
    write_tiny_base(folder / "base without dropout", dropout=0.0)
    write_dataset(folder / "dataset")
    return folder


@pytest.fixture(scope="module")
def unkilled(root: Path) -> dict[str, Any]:
    spec = write_spec(root, "unkilled", **LONG_ENOUGH)
    finished = run_program(spec)
    assert finished.returncode == 0, finished.stderr
    assert "step 1/" in finished.stderr
    assert "Traceback" not in finished.stderr
    return read_model(spec)


def write_spec(root: Path, name: str, **changes: Any) -> TrainSpec:
    """A spec of its own work and output folder, and its file."""
    (root / name).mkdir()
    spec = make_spec(root, work_dir=str(root / name / "work"), output_dir=str(root / name / "model"), **changes)
    save_spec(spec, root / name / "spec.json")
    return spec


def command(spec: TrainSpec, program: tuple[str, ...] = PROGRAM) -> list[str]:
    return [sys.executable, *program, str(Path(spec.output_dir).parent / "spec.json")]


def run_program(
    spec: TrainSpec, program: tuple[str, ...] = PROGRAM, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(spec, program),
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


def start_until(spec: TrainSpec, step: int, *options: str, program: tuple[str, ...] = PROGRAM) -> subprocess.Popen[str]:
    """The program, once a checkpoint of `step` or a later one is there."""
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*command(spec, program), *options], **pipes, text=True, start_new_session=True)
    deadline, work, wanted = time.monotonic() + PATIENCE_SECONDS, Path(spec.work_dir), TrainingState(step=step).name
    while not any(path.name >= wanted for path in work.glob("step-*[0-9]")):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"no checkpoint of step {step}: {process.communicate()[1]}")
        time.sleep(0.002 if work.exists() else 0.05)  # it imports for seconds, then takes a step in no time
    return process


def read_model(spec: TrainSpec) -> dict[str, Any]:
    """What must not depend on how often the training was interrupted."""
    folder = Path(spec.output_dir)
    record = json.loads((folder / "training.json").read_text())
    kept = {key: record[key] for key in ("history", "validations", "best", "stopped_early")}
    return {"weights": (folder / "model.safetensors").read_bytes(), **kept}


def test_ended_three_ways_it_comes_to_the_bytes_of_the_unkilled_training(root: Path, unkilled: dict[str, Any]) -> None:
    spec = write_spec(root, "killed", **LONG_ENOUGH)
    for step, number, code in ((5, signal.SIGKILL, -9), (15, signal.SIGTERM, 143), (25, signal.SIGINT, 130)):
        process = start_until(spec, step)
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == code
        assert "Traceback" not in said
        assert ("run again to go on from there" in said) == (code > 0)
        assert not Path(spec.output_dir).exists()
    finished = run_program(spec)
    assert finished.returncode == 0, finished.stderr
    assert json.loads((Path(spec.output_dir) / "training.json").read_text())["resumed_from_step"] >= 25
    assert read_model(spec) == unkilled


def test_it_does_not_outlive_its_parent(root: Path) -> None:
    process = start_until(write_spec(root, "orphan", training={"epochs": 500}), 2, "--stop-with-parent")
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 128 + signal.SIGTERM


def test_ranks_do_not_outlive_torchrun(root: Path) -> None:
    spec = write_spec(root, "orphaned ranks", training={"epochs": 500})
    agent = start_until(spec, 2, program=RANKS)
    assert len(processes_of(spec) - {agent.pid}) == 2
    agent.kill()
    agent.communicate(timeout=PATIENCE_SECONDS)  # the ranks hold its standard error open: this waits for them
    assert not processes_of(spec)
    assert (newest := sorted(Path(spec.work_dir).glob("step-*")))
    assert not newest[-1].name.endswith(PARTIAL)


def test_a_rank_that_is_killed_ends_the_others_and_is_told_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = write_spec(root, "killed rank", training={"epochs": 500})
    temporary = Path(spec.output_dir).parent / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    agent = start_until(spec, 2, program=RANKS)
    os.kill(max(processes_of(spec) - {agent.pid}), signal.SIGKILL)
    _, said = agent.communicate(timeout=PATIENCE_SECONDS)
    assert agent.returncode == 128 + signal.SIGKILL, said
    assert re.search(r"^rank [01] was ended by SIGKILL$", said, re.MULTILINE)
    assert "ChildFailedError" not in said
    assert not processes_of(spec)
    assert not list(temporary.glob("torchelastic*"))


@pytest.mark.parametrize(
    ("codes", "expected"),
    [({0: -15, 1: -9}, 137), ({0: 1, 1: -9}, 137), ({0: 2, 1: -15}, 2), ({0: -15, 1: -15}, 143), ({0: 143, 1: 2}, 143)],
)
def test_the_rank_that_took_the_others_along_decides(codes: dict[int, int], expected: int) -> None:
    assert _as_failed(codes) == expected


def test_a_rank_that_is_frozen_is_killed_when_the_training_is_stopped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = write_spec(root, "frozen rank", training={"epochs": 500})
    agent = start_until(spec, 2, program=RANKS)
    os.kill(min(processes_of(spec) - {agent.pid}), signal.SIGSTOP)
    monkeypatch.setattr(launcher, "GRACE_SECONDS", 3.0)
    launcher._stop(agent)
    agent.communicate(timeout=PATIENCE_SECONDS)
    assert not processes_of(spec)


def test_two_processes_that_are_stopped_in_a_validation_leave_a_checkpoint_at_once(root: Path) -> None:
    write_dataset(root / "long validation", make_rows(train=8, validation=30_000))
    spec = write_spec(root, "stopped validation", dataset_uri=str(root / "long validation"), training={"batch_tokens": 512})
    agent = start_until(spec, 1, program=RANKS)  # the only one of the epoch
    agent.terminate()
    _, said = agent.communicate(timeout=PATIENCE_SECONDS)
    assert agent.returncode == 128 + signal.SIGTERM
    assert "stopped in the validation after step 1 of" in said
    assert not processes_of(spec)


def processes_of(spec: TrainSpec) -> set[int]:
    """Ids of the processes with the work folder's spec in their command line."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if str(Path(spec.output_dir).with_name("spec.json")) in entry.read_bytes().decode("utf-8", "replace"):
                found.add(int(entry.parent.name))
    return found


def test_a_mistake_is_one_line_and_exit_code_two(root: Path) -> None:
    spec = write_spec(root, "mistaken")
    Path(spec.output_dir).with_name("spec.json").write_text('{"epochs": 3}')
    finished = run_program(spec)
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: the spec ")
    assert finished.stderr.count("\n") == 1


def test_a_checkpoint_that_the_disk_does_not_take_is_one_line_and_goes_on_where_it_does(root: Path) -> None:
    spec = write_spec(root, "tight")
    limited = ["bash", "-c", 'ulimit -f 64 && exec "$@"', "bash", *command(spec)]  # KiB, where a checkpoint has some hundreds
    refused = subprocess.run(limited, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert "error: [Errno 27] File too large. No file may grow so large here" in refused.stderr
    assert run_program(spec).returncode == 0


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("-v 2200000", "2.1 GiB of address space (ulimit -v), and a training takes 2.5"),
        ("-d 1200000", "1.1 GiB of private memory (ulimit -d)"),
    ],
)
def test_too_little_memory_to_begin_with_is_one_line(root: Path, limit: str, told: str) -> None:
    spec = write_spec(root, f"narrow {limit}")
    limited = ["bash", "-c", f'ulimit {limit} && exec "$@"', "bash", *command(spec)]
    refused = subprocess.run(limited, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: this process may have {told}")


def test_a_mistake_reaches_dagster(root: Path) -> None:
    spec = write_spec(root, "mistaken under pipes", base_model="/no/such/model")
    finished, messages = run_under_pipes(spec)
    assert finished.returncode == 2
    assert [line for line in finished.stderr.splitlines() if "/no/such/model" in line] == finished.stderr.splitlines()
    logged = [message["params"]["message"] for message in messages if message["method"] == "log"]
    assert sum("/no/such/model" in line for line in logged) == 1
    (reported,) = [Complaint(**message["params"]["payload"]) for message in messages if message["method"] == "report_custom_message"]
    assert "/no/such/model" in reported.message
    assert not reported.may_pass
    assert taken(Path(spec.output_dir).with_name("spec.json")) is None


def test_two_processes_take_the_steps_of_one_and_dagster_hears_of_it_once(root: Path) -> None:
    changes = {"base_model": str(root / "base without dropout"), "training": {"learning_rate": 0.001}}
    alone = run(write_spec(root, "one process", **changes), lambda _progress: None).record
    spec = write_spec(root, "two processes", **changes)
    finished, messages = run_under_pipes(spec, TORCHRUN)
    assert finished.returncode == 0, finished.stderr
    together = json.loads((Path(spec.output_dir) / "training.json").read_text())
    assert (alone["hardware"]["processes"], together["hardware"]["processes"]) == (1, 2)
    for measure in ("loss", "grad_norm", "learning_rate"):
        assert [row[measure] for row in together["history"]] == pytest.approx([row[measure] for row in alone["history"]], rel=1e-3)
    assert together["validations"][-1]["loss"] == pytest.approx(alone["validations"][-1]["loss"], rel=1e-3)
    reported = [message["params"]["payload"] for message in messages if message["method"] == "report_custom_message"]
    assert [payload["output_dir"] for payload in reported] == [spec.output_dir]
    assert len(reported[0]["weights_sha256"]) == 64
    logged = [message["params"]["message"] for message in messages if message["method"] == "log"]
    assert sum("step 1/" in line for line in logged) == 1
    assert sum("validation loss" in line for line in logged) == 2
    assert [message["method"] for message in messages].count("closed") == 1


def run_under_pipes(spec: TrainSpec, program: tuple[str, ...] = PROGRAM) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """Run the program as Dagster would; what it said through Pipes."""
    messages = Path(spec.output_dir).with_name("messages")
    messages.touch()
    unknown = (
        "code_version_by_asset_key",
        "provenance_by_asset_key",
        "partition_key",
        "partition_key_range",
        "partition_time_window",
        "job_name",
    )
    context = {"asset_keys": None, "run_id": "run", "retry_number": 0, "extras": {}, **dict.fromkeys(unknown)}
    environment = {
        "DAGSTER_PIPES_CONTEXT": encode_param({"data": context}),
        "DAGSTER_PIPES_MESSAGES": encode_param({"path": str(messages)}),
    }
    finished = run_program(spec, program, environment)
    return finished, [json.loads(line) for line in messages.read_text().splitlines()]


def test_what_any_rank_has_to_say_reaches_whoever_started_the_training(tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    assert taken(spec) is None
    note(Complaint("one example of 11 tokens does not fit the memory"), spec, 11)
    note(Complaint("no S3 server answers", may_pass=True), spec, 2)
    complaint = taken(spec)
    assert complaint == Complaint("no S3 server answers", may_pass=True)
    assert taken(spec) is None
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(S3Unreachable, match="no S3 server answers"):
        launcher._require_success(1, complaint, [], tmp_path, 2)
    with pytest.raises(ValueError, match="does not fit the memory"):
        launcher._require_success(1, Complaint("it does not fit the memory"), [], tmp_path, 2)
    with pytest.raises(dg.Failure, match="one of the 2 training processes failed with exit code 1; its traceback is in the run's stderr"):
        launcher._require_success(1, None, [], tmp_path, 2)
    with pytest.raises(dg.Failure, match=r"one of the 2 training processes was ended by SIGKILL \(by hand, or because memory ran out"):
        launcher._require_success(137, None, [], tmp_path, 2)
    with pytest.raises(dg.Failure, match="stopped after step 3"):
        launcher._require_success(1, None, [{"interrupted": "stopped after step 3 of 9"}], tmp_path, 2)
