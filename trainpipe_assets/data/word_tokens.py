"""Token ids put together from those of the words, each of which is tokenized once: what makes tokenization quick.

A language repeats its words, and most tokenizers cut a text at its spaces before they look at anything else. Which tokenizers those are,
and for which texts it holds, is decided here; every other text goes through the tokenizer as a whole.
"""

import json
from threading import local
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tokenizers import Tokenizer as FastTokenizer

from trainpipe_assets.data.list_columns import offsets

# Printable ASCII, words one space apart: no normaliser joins or parts such words, and a space always begins a new piece.
PLAIN = r"^[!-~]+(?: [!-~]+)*$"
MOST_WORDS = 500_000  # remembered at a time: bounds the memory
TOGETHER = 256  # new words tokenized as one text: what a tokenizer does for each text costs more than a word
WORTHWHILE = 0.5  # of the words at most may be new; where more are, whole texts are quicker

_NORMALISERS = frozenset({"BertNormalizer", "Lowercase", "StripAccents", "NFC", "NFD", "NFKC", "NFKD"})
_CUTTERS = frozenset({"BertPreTokenizer", "Whitespace", "WhitespaceSplit", "ByteLevel", "Digits", "Punctuation"})
_CUT_AT_SPACES = frozenset({"BertPreTokenizer", "Whitespace", "WhitespaceSplit", "ByteLevel"})


def words_are_independent(tokenizer: FastTokenizer) -> bool:
    """Whether the ids of a `PLAIN` text are those of its words, each with the space before it, one after the other.

    True only for pipelines known to be so: BERT's, and GPT-2's byte-level one with or without digits apart. Decided by the parts that
    a tokenizer is made of.
    """
    normalisers, cutters = (_parts(part and json.loads(part.__getstate__())) for part in (tokenizer.normalizer, tokenizer.pre_tokenizer))
    kinds = {part["type"] for part in cutters}
    by_regex = all(part.get("use_regex", True) for part in cutters)
    return (
        {part["type"] for part in normalisers} <= _NORMALISERS
        and kinds <= _CUTTERS
        and bool(kinds & _CUT_AT_SPACES)
        and by_regex
        and not getattr(tokenizer.model, "dropout", None)
    )


def _parts(component: dict[str, Any] | None) -> list[dict[str, Any]]:
    if component is None:
        return []
    nested = component.get("normalizers") or component.get("pretokenizers")
    return [component] if nested is None else [part for inner in nested for part in _parts(inner)]


class WordTokens(local):
    """The words seen so far and their ids, of each thread its own. The `tokenizer` must not cut texts."""

    def __init__(self, tokenizer: FastTokenizer, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._before, self._after = _special_ids(tokenizer)
        self._room = max_length - len(self._before) - len(self._after)
        self._added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        self._together = 1 if any(" " in added for added in self._added) else TOGETHER  # words side by side might make such a token
        self._forget()

    def _forget(self) -> None:
        self._words = pl.DataFrame(schema={"word": pl.String, "number": pl.Int64})
        self._ids = np.empty(0, np.int32)  # of all words in a row
        self._starts = np.zeros(1, np.int64)

    def covers(self, texts: pl.Series) -> pl.Series:
        """Which of `texts` are made of words that can be looked up one by one."""
        plain = texts.str.contains(PLAIN)
        if self._added:
            plain &= ~texts.str.contains_any(self._added, ascii_case_insensitive=True)
        return plain

    def encode(self, texts: pl.Series) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
        """Ids of `texts`, all of which are covered, in a row, and the lengths; None where too few words repeat to be worth it."""
        words = texts.str.replace_all(" ", "\n ", literal=True).str.split("\n")
        numbers = self._numbers(words.explode())
        if numbers is None:
            return None
        return self._assembled(numbers, words.list.len().to_numpy().astype(np.int64))

    def _numbers(self, words: pl.Series) -> NDArray[np.int64] | None:
        """The number of each word among those remembered, after the new ones were added."""
        coded = words.to_arrow(compat_level=pl.CompatLevel.oldest()).dictionary_encode()  # half the time of `unique` and a join
        different = pl.DataFrame({"word": pl.Series(coded.dictionary)})
        if len(self._words) + len(different) > MOST_WORDS:
            self._forget()
        new = different.join(self._words, on="word", how="anti")["word"]
        if len(new) > WORTHWHILE * len(words):
            return None
        self._remember(new)
        numbers = different.join(self._words, on="word", how="left", maintain_order="left")["number"].to_numpy()
        return numbers.take(pl.Series(coded.indices).to_numpy())

    def _remember(self, words: pl.Series) -> None:
        follows = words.str.starts_with(" ")
        words = pl.concat([words.filter(follows), words.filter(~follows)])
        ids, lengths = self._encoded(words, int(follows.sum()))
        numbers = pl.int_range(len(self._words), len(self._words) + len(words), dtype=pl.Int64, eager=True)
        self._words = pl.concat([self._words, pl.DataFrame({"word": words, "number": numbers})])
        self._ids = np.concatenate([self._ids, ids])
        self._starts = np.concatenate([self._starts, self._starts[-1] + np.cumsum(lengths)])

    def _encoded(self, words: pl.Series, n_following: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Ids of `words` in a row, and the lengths. Of the first `n_following`, which begin with a space, many make one text."""
        number = np.arange(len(words))
        text = np.where(number < n_following, number // self._together, number)
        begins = offsets(words.str.len_chars().to_numpy().astype(np.int64))[:-1]
        firsts = np.unique(text, return_index=True)[1]
        texts = pl.DataFrame({"text": text, "word": words}).group_by("text", maintain_order=True).agg(pl.col("word").str.join(""))["word"]
        encoded = self._tokenizer.encode_batch(texts.to_list(), add_special_tokens=False)
        ids, lengths = flat([one.ids for one in encoded])
        at = np.fromiter((start for one in encoded for start, _ in one.offsets), np.int64, len(ids)) + np.repeat(begins[firsts], lengths)
        return ids, np.bincount(np.searchsorted(begins, at, side="right") - 1, minlength=len(words))

    def _assembled(self, numbers: NDArray[np.int64], n_words: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The words' ids, text by text, cut to what there is room for, between the special ones."""
        lengths = self._starts[numbers + 1] - self._starts[numbers]
        body = np.add.reduceat(lengths, offsets(n_words)[:-1])
        kept = np.minimum(body, self._room)
        total = kept + len(self._before) + len(self._after)
        begins, ends = offsets(total)[:-1], np.cumsum(total)
        within = positions(body)  # of each id in its text
        stays = within < np.repeat(kept, body)
        ids = np.empty(int(total.sum()), np.int32)
        target = np.repeat(begins + len(self._before), kept) + within[stays]
        ids[target] = self._ids[(np.repeat(self._starts[numbers], lengths) + positions(lengths))[stays]]
        for number, special in enumerate(self._before):
            ids[begins + number] = special
        for number, special in enumerate(reversed(self._after), 1):
            ids[ends - number] = special
        return ids, total


def _special_ids(tokenizer: FastTokenizer) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after each text."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a").ids
    at = next(start for start in range(len(whole)) if whole[start : start + len(bare)] == bare)
    return whole[:at], whole[at + len(bare) :]


def flat(rows: list[list[int]]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Lists of ids as all ids in a row, and the lengths."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return np.fromiter((one for row in rows for one in row), np.int32, int(lengths.sum())), lengths


def positions(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2, … anew for each run."""
    return np.arange(int(lengths.sum())) - np.repeat(offsets(lengths)[:-1], lengths)
