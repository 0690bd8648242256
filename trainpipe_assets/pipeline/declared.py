"""Which files declare pipelines, and whether these can live together, by what is written there alone.

What a file says is checked by whoever loads it. Beside pipelines there may be all that a Dagster project has.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from trainpipe_assets.pipeline.failures import shortened

TYPE = "trainpipe_assets.TrainingPipeline"
_PACKAGE, _, _NAME = TYPE.partition(".")


def pipeline_files(folder: Path) -> list[Path]:
    """Every `defs.yaml` below `folder` that declares a pipeline.

    Raises:
        ValueError: one is empty, declares several, misspells its type, says one thing twice or lies where Dagster does not look, or two
            pipelines have one name or one key prefix.
        OSError: a folder may not be looked into.
    """
    texts = {path: _text(path) for path in _defs_files(folder)}
    documents = {path: _documents(text) for path, text in texts.items()}
    for path, found in documents.items():
        _require_type(path, found)
    declared = {path: found for path, found in documents.items() if any(_type_of(document).endswith(f".{_NAME}") for document in found)}
    for path, found in declared.items():
        _require_alone(path, found, texts)
        _require_keys_once(path, texts[path])
    _require_apart({path: path.parent.name for path in declared}, "name", "rename the folder of one of them")
    prefixes = {path: _key_prefix(found[0]) for path, found in declared.items() if _is_enabled(found[0])}
    _require_apart(prefixes, "key_prefix", "every pipeline but one needs a key_prefix of its own")
    return list(declared)


def _defs_files(folder: Path) -> list[Path]:
    """Every `defs.yaml` below `folder`; a folder that may not be looked into is an OSError, not one without."""

    def refuse(error: OSError) -> NoReturn:
        raise error

    walked = os.walk(folder, onerror=refuse) if folder.exists() else ()
    return sorted(Path(place, "defs.yaml") for place, _, names in walked if "defs.yaml" in names)


def _documents(text: str) -> list[Any]:
    """What is written in a file; of one that is no YAML, whose mistake is told when it is loaded, only that it is to be a pipeline."""
    try:
        return [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError:
        return [{"type": TYPE if _NAME in text else "", "attributes": {"enabled": False}}]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{shortened(str(path))} is not UTF-8 (byte {error.start + 1}); save it as UTF-8") from None


def _type_of(document: Any) -> str:
    return str(document.get("type", "")) if isinstance(document, Mapping) else ""


def _attributes(document: Any) -> Mapping[str, Any]:
    attributes = document.get("attributes")
    return attributes if isinstance(attributes, Mapping) else {}


def _is_enabled(document: Any) -> bool:
    return _attributes(document).get("enabled") is not False


def _key_prefix(document: Any) -> str:
    prefix = _attributes(document).get("key_prefix") or ()
    return "/".join(map(str, [prefix] if isinstance(prefix, str) else prefix)) if isinstance(prefix, str | Iterable) else ""


def _require_type(path: Path, documents: list[Any]) -> None:
    if not documents:
        raise ValueError(f"{shortened(str(path))} declares nothing: write `type: {TYPE}` and its attributes, or remove the file")
    for found in map(_type_of, documents):
        if found.startswith(f"{_PACKAGE}.") and not found.endswith(f".{_NAME}"):
            raise ValueError(f"{shortened(str(path))}: there is no component {found}; a pipeline is of `type: {TYPE}`")


def _require_alone(path: Path, documents: list[Any], files: Iterable[Path]) -> None:
    where = shortened(str(path))
    if len(documents) > 1:
        raise ValueError(f"{where} declares {len(documents)} things; a pipeline is named after its folder, so give each its own")
    above = next((shortened(str(other)) for other in files if other.parent in path.parents and other != path), None)
    if above is not None:
        raise ValueError(f"{where} lies below {above}, where Dagster looks for no other pipeline; put its folder beside that one")


def _require_keys_once(path: Path, text: str) -> None:
    """YAML takes the last of two keys, so that a whole section would be lost without a word."""
    try:
        nodes = list(yaml.compose_all(text, yaml.SafeLoader))
    except yaml.YAMLError:
        return
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            for index, (key, value) in enumerate(node.value):
                if key.value in keys[:index]:
                    raise ValueError(f"{shortened(str(path))}:{key.start_mark.line + 1}: {key.value} is there twice; put the two together")
                nodes.append(value)


def _require_apart(said: Mapping[Path, str], what: str, remedy: str) -> None:
    first: dict[str, Path] = {}
    for path, value in said.items():
        if value in first:
            both = f"{shortened(str(first[value]))} and {shortened(str(path))}"
            raise ValueError(f"{both} have the same {what}{f', {value!r}' if value else ': none'}; {remedy}")
        first[value] = path
