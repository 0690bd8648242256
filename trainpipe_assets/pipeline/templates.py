"""Templates in a `defs.yaml`, such as `{{ env.BUCKET }}`, filled in as text.

Dagster's own way takes what comes out, and each text without a template, for Python: the label "1" would be a number, and "'a'" be a.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateError

Key = str | int
_TEMPLATE = re.compile(r"\{\{-?\s*[A-Za-z_]")  # a pattern may have two braces, too, but no name behind them


def filled(value: Any, scope: Mapping[str, Any], where: Callable[[tuple[Key, ...]], str], path: tuple[Key, ...] = ()) -> Any:
    """`value`, whatever is nested in it, with its templates filled in from `scope`.

    Args:
        value: settings as they are written.
        scope: what templates may name.
        where: tells a person where in the file a path of keys is.
        path: that of `value`.

    Raises:
        ValueError: a template cannot be read, or names what is not there, such as a variable that is not set.
    """
    if isinstance(value, Mapping):
        return {key: filled(inner, scope, where, (*path, key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [filled(inner, scope, where, (*path, index)) for index, inner in enumerate(value)]
    if isinstance(value, str) and _TEMPLATE.search(value):
        return _text(value, scope, where(path))
    return value


def _text(template: str, scope: Mapping[str, Any], where: str) -> str:
    def there(found: Any) -> Any:
        if found is None:
            raise ValueError(f"{where}: the template {template!r} names a variable that is not set; set it, or write the value itself")
        return found

    try:
        environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, finalize=there)
        return environment.from_string(template).render(**scope)
    except TemplateError as error:
        raise ValueError(f"{where}: the template {template!r} cannot be filled in: {error}") from None
