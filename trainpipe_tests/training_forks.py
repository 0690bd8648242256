"""Trainings that need not import anything: the launcher of the shipped pipeline, whose training program is a fork of one that has.

Half of the time of a short training goes into importing torch and transformers. `ForkingLauncher` starts, in the place of the program, a
process that hands its arguments, environment and streams to a server (`python -m trainpipe_tests.training_forks SOCKET`), passes signals
on, and ends as the fork does. What is real otherwise: the command, Pipes, exit codes, and the training. The program itself is started
for real in `unit/test_training_program.py` and `e2e/`. Of this project the process imports nothing, so that it starts at once.
"""

import array
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

START_SECONDS = 300.0
STREAMS = 3  # standard input, output and error
THREADS = "1"  # of OpenMP, which reads it once: what `Workplace` asks for


def command(python: str, arguments: list[str]) -> list[str]:
    """What is started in the place of `python -m trainpipe_assets.training ARGUMENTS`."""
    _, door = _server()
    return [python, "-I", "-S", __file__, str(door), *arguments]


@functools.cache
def _server() -> tuple[subprocess.Popen[bytes], Path]:
    """This process's server, started at the first call, and the path of its socket. It ends with this process: so does its input."""
    door = Path(tempfile.mkdtemp(prefix="training-forks-")) / "door"
    server = subprocess.Popen([sys.executable, "-m", __spec__.name, str(door)], stdin=subprocess.PIPE)
    deadline = time.monotonic() + START_SECONDS
    while not door.exists():
        assert server.poll() is None, f"the server of trainings ended with exit code {server.returncode}"
        assert time.monotonic() < deadline, f"the server of trainings did not start within {START_SECONDS:.0f} s"
        time.sleep(0.01)
    return server, door


def enter(path: str, arguments: list[str]) -> int:
    """Have the server fork a training; its exit code, or the end by the signal that ended it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        streams = array.array("i", range(STREAMS))
        connection.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
        connection.sendall(json.dumps({"arguments": arguments, "environment": dict(os.environ), "folder": str(Path.cwd())}).encode())
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile() as told:
            training = int(told.readline())
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda number, _frame: os.kill(training, number))
            code = int(told.readline())
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code in (signal.SIGINT, signal.SIGTERM) else None
        os.kill(os.getpid(), -code)
    return code


def serve(door: Path) -> None:
    """Import what a training needs, then fork for whoever comes, until standard input ends."""
    _import_everything()
    with socket.socket(socket.AF_UNIX) as listener:
        unfinished = door.with_suffix(".new")
        listener.bind(str(unfinished))
        listener.listen()
        unfinished.rename(door)  # there once it can be entered
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    os._exit(_attend(connection))
    shutil.rmtree(door.parent)


def _import_everything() -> None:
    """As the program does, in the environment that it prepares."""
    os.environ.update({"OMP_NUM_THREADS": THREADS, "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"})
    import_module("trainpipe_assets.training.__main__")
    import_module("trainpipe_assets.training.loop")


def _attend(connection: socket.socket) -> int:
    """Fork the training, tell its process id, wait for it, tell its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(STREAMS * array.array("i").itemsize))
    streams = array.array("i")
    streams.frombytes(ancillary[0][2])
    with connection.makefile("rb") as asked:
        order = json.loads(asked.read())
    training = os.fork()
    if training == 0:
        connection.close()
        _become(order, streams.tolist())
    for stream in streams:
        os.close(stream)
    connection.sendall(f"{training}\n".encode())
    connection.sendall(f"{os.waitstatus_to_exitcode(os.waitpid(training, 0)[1])}\n".encode())
    return 0


def _become(order: dict[str, Any], streams: list[int]) -> None:
    """Be the training program that was asked for, and end."""
    from trainpipe_assets.training import __main__ as program

    code = 1
    try:
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["folder"])
        code = program.main(order["arguments"])
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # noqa: BLE001  # told as the interpreter tells it; a fork must end here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(Path(sys.argv[1]))
    else:
        sys.exit(enter(sys.argv[1], sys.argv[2:]))
