"""A user's mistake as one clear message.

Everything below this layer raises `ValueError` for what a person has to mend; here it becomes a Dagster failure that is not retried
and shows the message alone. All other exceptions pass: they are faults of storage, to be retried, or of this code.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from pydantic import ValidationError


@contextmanager
def explained() -> Iterator[None]:
    """Turn a `ValueError` raised inside into a failure that says what to do and is not tried again."""
    try:
        yield
    except ValidationError as error:
        raise dg.Failure(description=one_line(error), allow_retries=False) from None
    except ValueError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None


def one_line(error: ValidationError) -> str:
    """Each value that was refused: where it stands, what was found, what is allowed."""
    problems = (f"{'.'.join(map(str, item['loc'])) or error.title}: found {item['input']!r}, {item['msg']}" for item in error.errors())
    return "; ".join(problems)
