"""`python -m trainpipe_assets.training.ranks N SPEC.json [OPTIONS]`: the training program as N processes of this machine, under torchrun.

It ends as the process that failed did: by 128 + the signal that ended one, else with its exit code. torchrun itself says no more than that
one failed, and writes at length about those that the first took along.
"""

import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    processes, spec, *options = sys.argv[1:] if arguments is None else arguments
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    places = [f"--log-dir={Path(spec).parent / 'torchrun'}", "-m", "trainpipe_assets.training"]  # by default a new folder in /tmp each time
    try:
        asked = parse_args(["--standalone", f"--nproc-per-node={processes}", *places, spec, *options])  # type: ignore[no-untyped-call]
        run(asked)  # type: ignore[no-untyped-call]  # torch lacks annotations, here as above
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        return _as_failed({rank: failure.exitcode for rank, failure in sorted(error.failures.items())})
    return 0


def _as_failed(codes: Mapping[int, int]) -> int:
    """The exit code for those of the ranks that failed. One that was killed took the others along; torchrun ends those by SIGTERM."""
    others = {rank: code for rank, code in codes.items() if code != -signal.SIGTERM} or codes
    rank, code = min(others.items(), key=lambda failed: failed[1] >= 0)
    if code >= 0:
        return code
    print(f"rank {rank} was ended by {signal.Signals(-code).name}", file=sys.stderr)
    return 128 - code


if __name__ == "__main__":
    sys.exit(main())
