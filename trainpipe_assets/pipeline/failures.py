"""A user's mistake as one clear message.

Everything below this layer raises `ValueError` for what a person has to mend; here it becomes a Dagster failure that is not retried
and shows the message alone; so does what the local disk refuses. All other exceptions pass: they are faults of storage, to be retried, or
of this code.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

import dagster as dg
from dagster.components.resolved.errors import ResolutionException
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from yaml import YAMLError

from trainpipe_assets.data.sources import FileChangedWhileReading
from trainpipe_assets.settings import AutomationSettings, PipelineSettings
from trainpipe_assets.storage import s3
from trainpipe_assets.storage.disk import refused_by_disk
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


def retry_policy(settings: AutomationSettings) -> dg.RetryPolicy:
    """How steps are tried again after what may pass, later each time and not all at once."""
    return dg.RetryPolicy(max_retries=settings.max_retries, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


_MAY_PASS = (S3Unreachable, FileChangedWhileReading)


@contextmanager
def explained() -> Iterator[None]:
    """Turn a `ValueError` raised inside, or what disk or server refuse, into a failure that says what to do. It is tried again only where
    another try may find things changed: a server that did not answer, a file that was being written."""
    _Stacks.show()
    try:
        yield
    except Exception as error:  # libraries raise what disks and servers refuse as errors of many kinds; what no person can mend passes
        cause = s3.problem_of(error) or error
        told = _told(cause)
        if told is None:
            raise
        if _Stacks.hidden_when_explained:
            _Stacks.hide()
        raise dg.Failure(description=told, allow_retries=isinstance(cause, _MAY_PASS)) from None


def message_of(error: Exception) -> str | None:
    """What a person has to mend, in one message; None where it is nothing of the kind."""
    return _told(s3.problem_of(error) or error)


def _told(cause: Exception) -> str | None:
    if isinstance(cause, ValidationError):
        return one_line(cause)
    return str(cause) if isinstance(cause, (ValueError, *_MAY_PASS)) else refused_by_disk(cause)


def end_with(message: str) -> NoReturn:
    """Fail the loading of the code with the message alone, in whatever process of Dagster it is."""
    end_without_stack(dg.DagsterInvalidDefinitionError(message))


def end_without_stack(error: BaseException) -> NoReturn:
    """Raise `error`, with which this process of Dagster ends: its message is all there is to say."""
    _Stacks.hide()
    raise error from None


@contextmanager
def one_message() -> Iterator[None]:
    """Turn what is wrong with a `defs.yaml` or a variable into a `ValueError` that says where, what, and what is allowed.

    Dagster wraps what a component says into errors that draw the whole tree of components; the first of the chain is what matters.
    """
    try:
        yield
    except Exception as error:  # of whatever kind Dagster makes of it; what no person can mend passes as it came
        cause = _first_cause(error)
        told = str(cause).rstrip() if isinstance(cause, YAMLError | ResolutionException | dg.DagsterError) else message_of(cause)
        if told is None:
            raise
        raise ValueError(told) from None


@contextmanager
def ending_with_one_message() -> Iterator[None]:
    """End the loading of the code with the one message of what is wrong."""
    try:
        with one_message():
            yield
    except ValueError as error:
        end_with(str(error))


def _first_cause(error: Exception) -> Exception:
    return _first_cause(error.__cause__) if isinstance(error.__cause__, Exception) else error


def one_line(error: ValidationError, variables: Mapping[str, str] = MappingProxyType({})) -> str:
    """Each value that was refused: where it stands, what was found, what is allowed. `variables` are those that fields are from."""
    return "; ".join(_refused(item, error.title, variables) for item in error.errors())


_BRANCH = re.compile(r"\.(literal|constrained|lax)[-\w]*\[.*\]")  # of a union, as pydantic calls it behind the key


def _refused(item: ErrorDetails, title: str, variables: Mapping[str, str]) -> str:
    """One value; of a `defs.yaml` Dagster knows file and line, and has put them behind the key."""
    position = item.get("ctx", {}).get("source_position")
    path = _BRANCH.sub("", ".".join(map(str, item["loc"])).partition(" at ")[0])
    where = f"{shortened(position.filename)}:{position.start.line}: {path}" if position else variables.get(path, path) or title
    if item["type"] == "extra_forbidden":
        near = closest_key(path.removeprefix("attributes.").split("."))
        return f"{where}: there is no such key{f'; did you mean {near}?' if near else ''}"
    found = "" if isinstance(item["input"], Mapping | BaseModel) else f"found {item['input']!r}, "  # a section speaks of its keys itself
    return f"{where}: {found}{item['msg'].removeprefix('Value error, ')}"


def shortened(path: str) -> str:
    """From the folder that the command was started in, where it is below that."""
    return str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else path


def closest_key(path: list[str]) -> str | None:
    """The key of `PipelineSettings` that a misspelt one is most like, beside it; None where none is."""
    settings: type[BaseModel] = PipelineSettings
    for name in path[:-1]:
        annotation = settings.model_fields[name].annotation if name in settings.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        settings = annotation
    return next(iter(get_close_matches(path[-1], settings.model_fields, n=1)), None)
