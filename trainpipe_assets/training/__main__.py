"""`python -m trainpipe_assets.training SPEC.json`, alone or under torchrun: the process around a training.

Arguments, environment, signals, logging, exit codes, and the Dagster Pipes session of rank 0. The training itself is `loop.py`.
"""

import argparse
import logging
import os
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from dagster_pipes import PipesContext, PipesEnvVarParamsLoader, open_dagster_pipes

from trainpipe_assets.storage.disk import refused_by_disk
from trainpipe_assets.storage.s3_problems import S3Unreachable
from trainpipe_assets.training.complaint import Complaint, note
from trainpipe_assets.training.cores import threads_of_each
from trainpipe_assets.training.errors import Interrupted, lack_of_determinism, lack_of_memory
from trainpipe_assets.training.heap import keep_freed_memory
from trainpipe_assets.training.progress import Report, bar_report, periodic_log
from trainpipe_assets.training.spec import GRACE_SECONDS, TrainSpec, load_spec

USER_MISTAKE = 2  # exit code for a message that a person has to act on
LOOK_AGAIN_SECONDS = 0.5
LEAST_MEMORY = (
    (resource.RLIMIT_AS, "address space (ulimit -v)", 5 * 2**29),  # with 2.1 GiB it hangs, with 2.5 a tiny model is trained
    (resource.RLIMIT_DATA, "private memory (ulimit -d)", 3 * 2**29),  # with 1.2 GiB it hangs, with 1.4 a library aborts
)
"""What the libraries and their threads take or reserve, whatever the model."""

log = logging.getLogger("trainpipe_assets.training")


class StopRequest:
    """Whether this process was asked to stop, and by which signal. Asking again changes nothing."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    def set(self, number: int, _frame: object = None) -> None:
        """Ask for a stop as if signal `number` had come."""
        self.signal = self.signal or number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code: 0, 2 for a user's mistake, 128 + signal after a stop that left a checkpoint."""
    options = _parser().parse_args(arguments)
    stop = StopRequest()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop.set)
    rank = int(os.environ.get("RANK", "0"))
    if options.stop_with_parent or "RANK" in os.environ:
        threading.Thread(target=_stop_with_parent, args=(stop, os.getppid(), options.stop_with_parent), daemon=True).start()
    with _pipes(rank) as pipes:
        _start_logging(rank, pipes)
        return _train(options.spec, rank, pipes, stop)


def _train(path: Path, rank: int, pipes: PipesContext | None, stop: StopRequest) -> int:
    processes_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    try:
        spec = load_spec(path)
        _require_memory()
        _prepare_environment(spec, processes_here)
        if processes_here == 1 or spec.compute.sharding == "none":  # layers that are put together would be kept as often as there are
            keep_freed_memory()
        from trainpipe_assets.training import loop  # with transformers, which must see the environment above

        finished = loop.run(spec, _report(rank, pipes), stop, processes_here)
    except ValueError as error:
        return _complain(Complaint(str(error), may_pass=isinstance(error, S3Unreachable)), path, rank, pipes)
    except Interrupted as error:
        log.warning("%s", error)
        if pipes is not None:
            pipes.report_custom_message({"interrupted": str(error)})
        return 128 + (stop.signal or signal.SIGTERM)
    except Exception as error:  # libraries raise what disk and device refuse as errors of many kinds; the others pass as they came
        told = refused_by_disk(error) or lack_of_determinism(error) or lack_of_memory(error)
        if told is None:
            raise
        return _complain(Complaint(told), path, rank, pipes)
    log.info("finished: %s", finished.folder)
    if pipes is not None:
        pipes.report_custom_message({"output_dir": str(finished.folder), "weights_sha256": finished.weights_sha256})
    return 0


def _complain(complaint: Complaint, spec: Path, rank: int, pipes: PipesContext | None) -> int:
    """Say one line about what a person has to correct."""
    line = " ".join(complaint.message.split())
    print(f"error: {line}" if rank == 0 else f"error (rank {rank}): {line}", file=sys.stderr)
    told = replace(complaint, message=line)
    if pipes is not None:
        pipes.log.error(line)
        pipes.report_custom_message(asdict(told))
    elif _started_by_dagster():
        note(told, spec, rank)
    return USER_MISTAKE


def _require_memory() -> None:
    """Libraries that cannot start their threads for lack of memory wait for ever, or end the process without a word."""
    for kind, what, least in LEAST_MEMORY:
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY and limit < least:
            raise ValueError(
                f"this process may have {limit / 2**30:.1f} GiB of {what}, and a training takes {least / 2**30:.1f} GiB before its model "
                "is loaded: raise the limit, or bound the memory by a container"
            )


def _prepare_environment(spec: TrainSpec, processes_here: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads_of_each(spec.compute, processes_here))
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # what cuBLAS needs to give the same bits every time
    os.environ.update({"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"})


def _stop_with_parent(stop: StopRequest, parent: int, holds_input: bool) -> None:
    """Ask for a stop once the parent is gone, and end this process if it does not come to that: it may wait for another one for ever.

    torchrun starts each rank in a session of its own, so whoever kills torchrun does not reach the ranks. A parent that holds our
    standard input open is gone when that ends, too: it may be the parent of torchrun.
    """
    while os.getppid() == parent and not (holds_input and _has_ended(sys.stdin.fileno())):
        time.sleep(LOOK_AGAIN_SECONDS)
    stop.set(signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _has_ended(descriptor: int) -> bool:
    """Whether nothing will come from it any more; what comes is thrown away. Not through sys.stdin, whose lock would be held at exit."""
    readable, _, _ = select.select([descriptor], [], [], 0.0)
    return bool(readable) and not os.read(descriptor, 65_536)


@contextmanager
def _pipes(rank: int) -> Iterator[PipesContext | None]:
    """Rank 0's session with Dagster, where Dagster started this program; the other ranks inherit its environment but not its voice."""
    if rank != 0 or not _started_by_dagster():
        yield None
        return
    with open_dagster_pipes() as pipes:
        yield pipes


def _started_by_dagster() -> bool:
    loader = PipesEnvVarParamsLoader()  # type: ignore[no-untyped-call]  # its constructor lacks annotations
    return loader.is_dagster_pipes_process()


def _start_logging(rank: int, pipes: PipesContext | None) -> None:
    logger = logging.getLogger("trainpipe_assets")
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for handler in [to_stderr] if pipes is None else pipes.log.handlers:  # those of a session pass it to Dagster, which writes it there
        logger.addHandler(handler)


def _report(rank: int, pipes: PipesContext | None) -> Report:
    """A bar for a person at a terminal, lines for a log; nothing from ranks other than 0."""
    if rank != 0:
        return lambda progress: None
    return bar_report(sys.stderr) if pipes is None and sys.stderr.isatty() else periodic_log(log.info)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m trainpipe_assets.training", description="Train what a spec describes, or go on with it.")
    parser.add_argument("spec", type=Path, help="JSON file with a TrainSpec")
    parser.add_argument("--stop-with-parent", action="store_true", help="stop, leaving a checkpoint, once standard input ends")
    return parser


if __name__ == "__main__":
    sys.exit(main())
