"""A tokenizer's own chat template: messages rendered as its `tokenizer_config.json` says, and where the answers lie in the result.

The template comes with the model and is not trusted: it runs in Jinja's sandbox, and has neither the clock nor files. Tokens are
`document_tokens.py`'s.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from trainpipe_assets.data.documents import ANSWERING
from trainpipe_assets.data.fast_tokenizer import read_tokenizer_config, special_tokens

OPENS, CLOSES = "\x02", "\x03"  # around what a template marks as generated: control characters, which no clean text holds

Message = tuple[str, str]  # role and content
Spans = list[tuple[int, int]]  # of characters, from the first to before the last


class Refused(ValueError):
    """The template does not take a conversation, and what it says: some insist on roles that alternate."""


@dataclass(frozen=True)
class ChatTemplate:
    """The template `source` of the base model in `folder`, and the special tokens that it may name."""

    source: str
    tokens: Mapping[str, str]
    folder: str

    def render(self, messages: Sequence[Message], *, prompting: bool = False) -> str:
        """The text of a conversation; with `prompting` it ends where the next answer would begin.

        Raises:
            Refused: the template does not take the messages.
        """
        return self._render(messages, prompting=prompting).replace(OPENS, "").replace(CLOSES, "")

    def answers(self, messages: Sequence[Message]) -> tuple[str, Spans]:
        """The text of a conversation, and where the answers lie in it.

        They lie where the template itself says so, with `{% generation %}`; where it does not, between the text that asks for the answer
        and the text that ends with it.

        Raises:
            Refused: the template does not take the messages.
            ValueError: it marks no answers, and renders a message differently once others follow.
        """
        marked = self._render(messages)
        if OPENS in marked:
            return _without_marks(marked)
        spans = []
        for number, (role, _) in enumerate(messages):
            if role == ANSWERING:
                asked, answered = self._before(messages, number), self.render(messages[: number + 1])
                if not (answered.startswith(asked) and marked.startswith(answered)):
                    raise ValueError(self._changes_its_mind(number))
                spans.append((len(asked), len(answered)))
        return marked, spans

    def _before(self, messages: Sequence[Message], number: int) -> str:
        """The text up to answer `number`. Before the first message stands what a template, which may want to see one, puts there."""
        if number:
            return self.render(messages[:number], prompting=True)
        return self._render([(ANSWERING, OPENS)]).partition(OPENS)[0]

    @cached_property
    def _template(self) -> Template:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        environment.filters["tojson"] = _as_json
        environment.globals["raise_exception"] = _refuse
        try:
            return environment.from_string(self.source)
        except TemplateError as error:
            raise ValueError(f"the chat template of the base model in {self.folder} is not valid: {error}") from error

    def _render(self, messages: Sequence[Message], *, prompting: bool = False) -> str:
        values = [{"role": role, "content": content} for role, content in messages]
        try:
            return self._template.render(messages=values, add_generation_prompt=prompting, tools=None, documents=None, **self.tokens)
        except Exception as error:  # a template is a program of others, and what is wrong with it is of any kind
            raise Refused(f"{error}") from error

    def _changes_its_mind(self, number: int) -> str:
        return (
            f"the chat template of the base model in {self.folder} renders message {number + 1} differently once others follow, and marks "
            "no answers with {% generation %}: which tokens are the answers cannot be told. Put the marks into its chat_template"
        )


def load_chat_template(folder: str) -> ChatTemplate:
    """The chat template of the base model in `folder`.

    Raises:
        ValueError: it has none.
    """
    config = read_tokenizer_config(folder)
    file = Path(folder) / "chat_template.jinja"
    source = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
    if isinstance(source, list):  # several, by name
        source = {one.get("name"): one.get("template") for one in source if isinstance(one, dict)}.get("default")
    if not isinstance(source, str):
        raise ValueError(
            f"the tokenizer of the base model in {folder} has no chat template, which source.kind chat needs: choose a model that was "
            "tuned to chat, or give it one (chat_template in its tokenizer_config.json)"
        )
    return ChatTemplate(source, special_tokens(config), folder)


class _Generation(Extension):
    """`{% generation %}`: the part of a template that the model is to write."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Callable[[], str]) -> str:
        return f"{OPENS}{caller()}{CLOSES}"


def _without_marks(marked: str) -> tuple[str, Spans]:
    pieces: list[str] = []
    spans: Spans = []
    length = 0
    for number, piece in enumerate(marked.replace(CLOSES, OPENS).split(OPENS)):
        if number % 2:
            spans.append((length, length + len(piece)))
        pieces.append(piece)
        length += len(piece)
    return "".join(pieces), spans


def _as_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
