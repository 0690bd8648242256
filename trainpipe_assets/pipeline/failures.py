"""A user's mistake as one clear message.

Everything below this layer raises `ValueError` for what a person has to mend; here it becomes a Dagster failure that is not retried
and shows the message alone. All other exceptions pass: they are faults of storage, to be retried, or of this code.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from pydantic import ValidationError

from trainpipe_assets.storage.s3_problems import S3Unreachable


class _Stacks:
    """Whether Dagster writes the stack below an explained failure. It does, unless a run's own process says `messages_alone`."""

    hidden_when_explained = False

    @staticmethod
    def hide() -> None:
        """The one way to have Dagster write none: it asks Python's traceback module, which obeys this limit."""
        sys.tracebacklimit = 0

    @staticmethod
    def show() -> None:
        """Undo `hide`."""
        sys.__dict__.pop("tracebacklimit", None)


@contextmanager
def messages_alone() -> Iterator[None]:
    """Within, an explained failure is reported without a stack. For a process that does nothing but one run."""
    _Stacks.hidden_when_explained = True
    try:
        yield
    finally:
        _Stacks.hidden_when_explained = False
        _Stacks.show()


@contextmanager
def explained() -> Iterator[None]:
    """Turn a `ValueError` raised inside into a failure that says what to do and is not tried again, unless a server did not answer."""
    _Stacks.show()
    try:
        yield
    except ValueError as error:
        if _Stacks.hidden_when_explained:
            _Stacks.hide()
        message = one_line(error) if isinstance(error, ValidationError) else str(error)
        raise dg.Failure(description=message, allow_retries=isinstance(error, S3Unreachable)) from None


def one_line(error: ValidationError) -> str:
    """Each value that was refused: where it stands, what was found, what is allowed."""
    problems = (f"{'.'.join(map(str, item['loc'])) or error.title}: found {item['input']!r}, {item['msg']}" for item in error.errors())
    return "; ".join(problems)
