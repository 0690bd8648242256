"""How a record becomes an example, and which split it is in."""

from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema, field_validator, model_validator

from trainpipe_assets.settings.base import Fraction, OneOrMany, Settings

LONGEST_LABELLED = 20_000  # characters of a labelled text, where cleaning.max_chars does not say
LANGUAGES = frozenset(  # that py3langid tells
    (  # noqa: SIM905  # a line each is a page
        "ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu ext fa fi fo fr fuv fy ga gcf gcr "
        "gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is it ja jv ka kab kik kk km kn ko ku ky la lb lg lij ln lo lt ltg lv "
        "mg mk ml mn mr ms mt my ne nl nn no nso oc om or pa pcm pl ps pt qu ro ru rw sa sdh se si sk sl sn so sq sr st sv sw ta te tg "
        "th tk tl tr tt ug uk ur uz uzs vec vi vo wa wuu xh yo yue zh zu"
    ).split()
)

LanguageCode = Annotated[str, Field(pattern="^[a-z]{2,3}$")]
Bounds = Annotated[  # Dagster makes samples of every schema, and knows arrays by their items only
    tuple[float, float], WithJsonSchema({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2})
]
PersonalData = Literal["email", "phone", "card", "iban", "ip"]


class NearDuplicateSettings(Settings):
    """Texts that are nearly the same: by the Jaccard index of their sets of five-character shingles."""

    action: Literal["group", "drop", "off"] = Field(
        default="group",
        description="group keeps them in one split; drop also rejects all but the first of each group; off does not look for them.",
    )
    similarity: float = Field(default=0.8, ge=0.5, le=1.0, description="Similarity from which two texts are nearly the same.")


class CleaningSettings(Settings):
    """How a record becomes an example, and which records do not."""

    unicode_form: Literal["NFC", "NFKC"] = Field(default="NFKC", description="Unicode normal form of the text.")
    unescape_html: bool = Field(default=True, description="Turn HTML entities (&amp;) into their characters.")
    min_chars: int = Field(default=2, ge=1, le=100_000, description="Shortest text kept, in characters after normalisation.")
    max_chars: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="Longest text kept, in characters after normalisation; by default 20,000, and for causal-lm any.",
    )
    labels: tuple[str, ...] | None = Field(
        default=None,
        description="Labels allowed, in the order of their ids; by default those found in the data, in lower case and sorted.",
    )
    label_aliases: dict[str, str] = Field(
        default_factory=dict, description="Other spellings of labels, e.g. {pos: positive}. Case and outer space never matter."
    )
    label_separator: str = Field(
        default=",",
        min_length=1,
        max_length=10,
        description="multi-label-classification: what stands between the labels of a text, where they are no list.",
    )
    target_range: Bounds | None = Field(
        default=None, description="text-regression: smallest and largest number allowed, both included; by default -1e30 and 1e30."
    )
    target_tolerance: float = Field(
        default=0.0,
        ge=0.0,
        allow_inf_nan=False,
        description="text-regression: numbers of the same text that differ from the first one's by no more than this repeat it; "
        "others contradict it, and then none is kept.",
    )
    drop_duplicates: bool = Field(
        default=True, description="Reject all but the first of the records with the same normalised text; false keeps them, in one split."
    )
    redact: tuple[PersonalData, ...] = Field(
        default=(), description="Personal data to replace by the name of its kind: email, phone, card, iban, ip."
    )
    phone_region: str | None = Field(
        default=None,
        pattern="^[A-Z]{2}$",
        description="Country (ISO 3166) whose phone numbers are also found without a country code; by default only numbers with one.",
    )
    languages: tuple[LanguageCode, ...] = Field(
        default=(), description="Languages (ISO 639, e.g. en) whose texts are kept; by default all. Takes about a millisecond a text."
    )
    language_confidence: Fraction = Field(
        default=0.5, description="Confidence from which a text counts as being in another language; one that could be either is kept."
    )
    language_min_bytes: int = Field(
        default=20,
        ge=1,
        le=10_000,
        description="A shorter text, in bytes of UTF-8 (20 Latin letters, 7 Chinese characters), is kept: nobody can tell its language.",
    )
    near_duplicates: NearDuplicateSettings = Field(default_factory=NearDuplicateSettings, description="Texts that are nearly the same.")

    @field_validator("phone_region")
    @classmethod
    def _known_region(cls, region: str | None) -> str | None:
        from phonenumbers import SUPPORTED_REGIONS  # only where it is asked for

        if region is not None and region not in SUPPORTED_REGIONS:
            known = ", ".join(sorted(SUPPORTED_REGIONS))
            raise ValueError(f"{region!r} is no country (ISO 3166) with phone numbers of its own; known are: {known}")
        return region

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(languages) - LANGUAGES)
        if unknown:
            raise ValueError(f"{', '.join(unknown)} cannot be told; known are: {', '.join(sorted(LANGUAGES))}")
        return languages

    @model_validator(mode="after")
    def _consistent(self) -> "CleaningSettings":
        if self.max_chars is not None and self.max_chars < self.min_chars:
            raise ValueError(f"cleaning.max_chars ({self.max_chars}) is smaller than cleaning.min_chars ({self.min_chars})")
        if self.target_range is not None and not self.target_range[0] < self.target_range[1]:
            raise ValueError(f"cleaning.target_range needs a smaller number and then a larger one, found {list(self.target_range)}")
        if self.labels is not None:
            if len({label.strip().lower() for label in self.labels}) < max(2, len(self.labels)):
                raise ValueError(f"cleaning.labels needs two or more labels that differ in more than case, found {list(self.labels)}")
            unknown = sorted(set(self.label_aliases.values()) - set(self.labels))
            if unknown:
                raise ValueError(f"cleaning.label_aliases leads to {unknown}, which cleaning.labels does not list ({list(self.labels)})")
        return self


class SplitSettings(Settings):
    """The examples that validate and test; the rest trains.

    The split of an example is a function of its duplicate group and the seed alone, but for files that are a split of their own.
    """

    validation: Fraction = Field(
        default=0.1, description="Share of examples for validation during training, where validation_files names none."
    )
    test: Fraction = Field(default=0.1, description="Share of examples for the final evaluation, where test_files names none.")
    validation_files: OneOrMany = Field(
        default=(),
        description="Files that are the validation split, by patterns such as dev.csv, dev-*.parquet or **/dev/**, where they are not of "
        "the test split; what other files repeat of them is rejected.",
    )
    test_files: OneOrMany = Field(
        default=(),
        description="Files that are the test split, by patterns such as test.csv, test-*.parquet or **/test/**; what other files repeat "
        "of them is rejected, so that it is never trained on.",
    )
    seed: int = Field(default=0, ge=0, description="Another seed gives another split.")
    min_examples: int = Field(default=8, ge=1, description="Fewest examples that each of the three splits must have.")

    @property
    def files(self) -> dict[str, tuple[str, ...]]:
        """The patterns of files that are a split of their own, by split; a file that several name is of the first."""
        return {"test": self.test_files, "validation": self.validation_files}

    @property
    def by_file(self) -> bool:
        """Whether some files are a split of their own."""
        return any(self.files.values())

    @property
    def drawn(self) -> tuple[float, float]:
        """The shares that test and validate of the examples in files that are no split of their own."""
        return (0.0 if self.test_files else self.test), (0.0 if self.validation_files else self.validation)

    @field_validator("validation_files", "test_files")
    @classmethod
    def _known_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            parts = pattern.split("/")
            odd = {"", ".", ".."} & set(parts) or pattern != pattern.strip() or "://" in pattern
            if odd or any("**" in part and part != "**" for part in parts) or pattern.count("[") != pattern.count("]"):
                raise ValueError(
                    f"{pattern!r} is no pattern of files: paths below the folder of the source, as test.csv, with *, ? and [] for what "
                    "is in a name and ** for any folders, as **/test-*.csv"
                )
        return patterns

    @model_validator(mode="after")
    def _leaves_training(self) -> "SplitSettings":
        if sum(self.drawn) >= 1.0:
            raise ValueError(f"split.validation + split.test is {sum(self.drawn):g}: nothing is left to train on")
        for split, share in (("validation", self.validation), ("test", self.test)):
            if not self.files[split] and not share:
                raise ValueError(f"split.{split} must be above 0, or split.{split}_files name some: early stopping and the gate need both")
        return self
