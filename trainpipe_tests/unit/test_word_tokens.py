"""Ids put together from those of the words are the tokenizer's own, for every text."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import RobertaProcessing, TemplateProcessing

from trainpipe_assets.data import word_tokens
from trainpipe_assets.data.tokenization import Tokenizer, load_tokenizer
from trainpipe_assets.data.word_tokens import words_are_independent

CORPORA = Path(__file__).parents[2] / "data" / "samples" / "corpora"
BASE = Path(__file__).parents[2] / "data" / "models" / "samples" / "all-MiniLM-L6-v2"
READERS = {".csv": pl.read_csv, ".parquet": pl.read_parquet}


def corpus() -> pl.Series:
    texts = [READERS[path.suffix](path)["text"] for path in sorted(CORPORA.iterdir()) if path.suffix in READERS]
    tweets = pl.read_csv(CORPORA / "tweets.tsv", separator="\t", quote_char=None)["text"]
    return pl.concat([*texts, tweets]).drop_nulls()


def bert() -> FastTokenizer:
    tokenizer = FastTokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(corpus()[:500].to_list(), trainers.WordPieceTrainer(vocab_size=2000, special_tokens=special))
    pairs = [(name, tokenizer.token_to_id(name)) for name in special[1:]]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=pairs)
    return tokenizer


def byte_level(*, digits: bool, prefix: bool) -> FastTokenizer:
    tokenizer = FastTokenizer(models.BPE())
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytewise]) if digits else bytewise
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=["<s>", "</s>", "<|end|>"])
    tokenizer.train_from_iterator(corpus()[:500].to_list(), trainer)
    if prefix:
        tokenizer.post_processor = RobertaProcessing(("</s>", 1), ("<s>", 0))
    return tokenizer


def loaded(tokenizer: FastTokenizer, folder: Path, max_length: int) -> Tokenizer:
    tokenizer.save(str(folder / "tokenizer.json"))
    return load_tokenizer(str(folder), max_length)


KINDS = {
    "bert": bert,
    "gpt2": lambda: byte_level(digits=False, prefix=False),
    "roberta": lambda: byte_level(digits=False, prefix=True),
    "smollm": lambda: byte_level(digits=True, prefix=False),
}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    made = loaded(KINDS[request.param](), tmp_path_factory.mktemp(request.param), 24)
    assert made.words is not None
    return made


def check_same(tokenizer: Tokenizer, texts: pl.Series) -> None:
    expected = [encoding.ids for encoding in tokenizer.fast.encode_batch_fast(texts.to_list())]
    assert tokenizer.encode(texts).to_list() == expected


def test_every_text_of_the_corpora_gets_the_tokenizers_own_ids(tokenizer: Tokenizer) -> None:
    texts = corpus().gather_every(5)
    assert tokenizer.words is not None
    assert tokenizer.words.covers(texts).mean() > 0.8  # so that it is the words that are tested
    check_same(tokenizer, texts)


@pytest.mark.skipif(not BASE.exists(), reason="the sample base model is not here; run `make samples`")
def test_every_text_of_the_corpora_gets_the_base_models_own_ids() -> None:
    check_same(load_tokenizer(str(BASE), 128), corpus())


WORDS = ["a-b", "(", ")", "!!", "$", "#x", "@y", "_", "~", "\\", '"', "it", "it's", "don't", "'ll", "42", "3.14"]
SPECIAL = ["[SEP]", "[sep]", "</s>", "<|end|>", "\x00", "\u200b", "w" * 120]
FOREIGN = ["é", "É", "e\u0301", "ß", "Σ", "İ", "汉字", "👍🏽", "«", "’s"]
PIECES = st.sampled_from([" ", "  ", "\t", "\n", *WORDS, *SPECIAL, *FOREIGN])


@given(st.lists(st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=40), min_size=1, max_size=8))
def test_odd_texts_get_the_tokenizers_own_ids(tokenizer: Tokenizer, texts: list[str]) -> None:
    check_same(tokenizer, pl.Series("text", [*texts, *["the same words again and again"] * 20]))


def test_what_is_remembered_stays_bounded(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_tokens, "MOST_WORDS", 300)
    for number in range(5):
        check_same(tokenizer, pl.Series("text", [f"word{number}x{i} and and and and" for i in range(100)]))
        assert tokenizer.words is not None
        assert len(tokenizer.words._words) <= 300


def test_a_tokenizer_that_looks_across_spaces_is_left_alone(tmp_path: Path) -> None:
    tokenizer = bert()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    assert not words_are_independent(tokenizer)
    tokenizer.pre_tokenizer = pre_tokenizers.Digits()  # leaves "two words" in one piece
    assert not words_are_independent(tokenizer)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(use_regex=False)
    assert not words_are_independent(tokenizer)
    made = loaded(tokenizer, tmp_path, 24)
    assert made.words is None
    check_same(made, pl.Series("text", ["two words", "two two"]))


def test_added_words_with_spaces_are_found(tmp_path: Path) -> None:
    tokenizer = bert()
    tokenizer.add_tokens(["new york"])
    check_same(loaded(tokenizer, tmp_path, 24), pl.Series("text", ["in New York now", "in new york", "new", "york new", *["a b c"] * 20]))
