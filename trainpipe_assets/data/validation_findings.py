"""What came of each validation rule: records that broke it, and whether the data as a whole keeps those about all records.

Measured on the tables, in streams of bounded memory. Judging single records is `validation.py`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from trainpipe_assets.data.source_schema import from_json
from trainpipe_assets.data.validation import OWN_COLUMNS, allowed, bounds, source_value
from trainpipe_assets.settings import ClassBalanceRule, NullRateRule, RecordRule, RowCountRule, SourceSettings, ValidationRule

FINDINGS = pl.Schema(
    {
        "rule": pl.String,
        "kind": pl.String,
        "severity": pl.String,
        "allowed": pl.String,
        "found": pl.String,
        "records": pl.Int64,  # that break a rule about records, else null
        "kept": pl.Boolean,  # the rule is kept, or what breaks it was rejected
    }
)
REPEATS = ("duplicate", "near_duplicate")  # rules for records that are as good as those that are kept
Found = tuple[str, bool]  # in words, and whether it is allowed


def require_columns(rules: Sequence[ValidationRule], raw: pl.LazyFrame, source: SourceSettings) -> None:
    """Make sure that each column that a rule looks at is in a landed file at least.

    Raises:
        ValueError: one is in none, and which there are.
    """
    wanted = {rule.name: column for rule in rules if (column := getattr(rule, "column", None)) is not None}
    if set(wanted.values()) <= set(OWN_COLUMNS):
        return
    texts = raw.select(pl.col("source_schema").drop_nulls().unique()).collect()["source_schema"]
    schemas = [schema for text in texts if (schema := from_json(text)) is not None]
    others = sorted({column.name for schema in schemas for column in schema.columns} - set(source.columns.values()))
    for name, column in wanted.items():
        if schemas and column not in (*OWN_COLUMNS, *others):
            known = ", ".join([*OWN_COLUMNS, *others[:20]]) + (f" and {len(others) - 20} more" if len(others) > 20 else "")
            raise ValueError(
                f"validation rule {name} looks at column {column!r}, which no landed file has; there are: {known}. "
                "Correct validation.rules in defs.yaml"
            )


def findings(
    rules: Sequence[ValidationRule], labels: Sequence[str], raw: pl.LazyFrame, examples: pl.LazyFrame, rejected: pl.LazyFrame
) -> pl.DataFrame:
    """One row for each of `rules`, in the schema `FINDINGS`, measured on the three tables. `labels` are those that there should be."""
    counts = _broken_counts(rules, examples, rejected)
    rows = []
    for rule in rules:
        if isinstance(rule, RecordRule):
            broken = counts.get(rule.name, 0)
            found, kept = (
                f"{broken:,} {'rejected' if rule.severity == 'block' else 'kept with a warning'}",
                rule.severity == "block" or not broken,
            )
        elif isinstance(rule, ClassBalanceRule):
            broken, (found, kept) = None, _balance(rule, labels, examples)
        else:
            broken, (found, kept) = None, _null_rate(rule, raw) if isinstance(rule, NullRateRule) else _row_count(rule, raw)
        rows.append((rule.name, rule.kind, rule.severity, allowed(rule), found, broken, kept))
    return pl.DataFrame(rows, schema=FINDINGS, orient="row")


@dataclass(frozen=True)
class Rejections:
    """How many records came last, and how many of them each rule rejected, the busiest first; not those that only repeat others."""

    records: int
    by_rule: Mapping[str, int]

    @property
    def share(self) -> float:
        """Of the records that came last, those that were rejected."""
        return sum(self.by_rule.values()) / self.records if self.records else 0.0


def newest_rejections(raw: pl.LazyFrame, rejected: pl.LazyFrame) -> Rejections:
    """What became of the files that came last."""
    files = raw.group_by("file_id").agg(records=pl.len(), came=pl.col("ingested_at").max()).collect(engine="streaming")
    newest = files.filter(pl.col("came") == pl.col("came").max())
    of_newest = pl.col("file_id").is_in(newest["file_id"].implode()) & ~pl.col("rule").is_in(REPEATS)
    counts = rejected.filter(of_newest).group_by("rule").len().collect(engine="streaming").sort("len", "rule", descending=[True, False])
    return Rejections(int(newest["records"].sum()), dict(counts.iter_rows()))


def message(found: pl.DataFrame, severity: str) -> str | None:
    """The rules of the severity that are not kept, in one sentence each; None where all are."""
    broken = found.filter(~pl.col("kept") & (pl.col("severity") == severity))
    lines = [f"{row['rule']}: found {row['found']}, allowed is {row['allowed']}" for row in broken.iter_rows(named=True)]
    return "; ".join(lines) or None


def _broken_counts(rules: Sequence[ValidationRule], examples: pl.LazyFrame, rejected: pl.LazyFrame) -> dict[str, int]:
    """How many records break each rule about records."""
    if not any(isinstance(rule, RecordRule) for rule in rules):
        return {}
    names = [rule.name for rule in rules]
    warned = examples.select(rule=pl.col("warnings").explode()).drop_nulls()
    blocked = rejected.filter(pl.col("rule").is_in(names)).select("rule")
    counted = pl.concat([warned, blocked]).group_by("rule").len().collect(engine="streaming")
    return dict(counted.iter_rows())


def _balance(rule: ClassBalanceRule, labels: Sequence[str], examples: pl.LazyFrame) -> Found:
    counts = dict.fromkeys(labels, 0) | dict(examples.group_by("label").len().collect(engine="streaming").iter_rows())
    total = sum(counts.values())
    shares = {label: count / total for label, count in sorted(counts.items())} if total else {}
    words = ", ".join(f"{label} {share:.4g}" for label, share in shares.items()) or "no examples"
    return words, all(_within(share, rule) for share in shares.values())


def _null_rate(rule: NullRateRule, raw: pl.LazyFrame) -> Found:
    value = pl.col(rule.column) if rule.column in ("text", "label") else source_value(rule.column)
    empty = value.fill_null("").str.strip_chars() == ""
    counts = raw.filter(pl.col("problem").is_null()).select(records=pl.len(), empty=empty.sum()).collect(engine="streaming")
    records, without = counts.row(0)
    rate = without / records if records else 0.0
    return f"{rate:.4g} ({without:,} of {records:,} records)", _within(rate, rule)


def _row_count(rule: RowCountRule, raw: pl.LazyFrame) -> Found:
    """The file that came last and is furthest from what is usual; nothing is unusual where all came together."""
    files = raw.group_by("source_file").agg(records=pl.len(), came=pl.col("ingested_at").max()).collect(engine="streaming")
    newest = pl.col("came") == pl.col("came").max()
    before = files.filter(~newest)["records"].median()
    if not isinstance(before, float):
        return "nothing came before", True
    ratios = files.filter(newest).select("source_file", "records", ratio=pl.col("records") / before).sort("ratio", "source_file")
    low, high = ratios.row(0, named=True), ratios.row(-1, named=True)
    worst = high if _within(low["ratio"], rule) else low
    words = f"{worst['ratio']:.4g} times the usual ({worst['source_file']} has {worst['records']:,} records, usual are {before:,.6g})"
    return words, _within(worst["ratio"], rule)


def _within(value: float, rule: ClassBalanceRule | NullRateRule | RowCountRule) -> bool:
    low, high = bounds(rule)
    return (low is None or value >= low) and (high is None or value <= high)
