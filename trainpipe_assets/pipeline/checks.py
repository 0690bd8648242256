"""What must hold of the assets, proved at every run: conservation, splits that do not leak, intact files, the gate.

Each check reads tables at the versions that this run committed. Computing the numbers it judges is left to the core.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import dagster as dg
import polars as pl

from trainpipe_assets.data.conservation import files_of, groups_in_two_splits, partition
from trainpipe_assets.data.document_tokens import refused_chats
from trainpipe_assets.data.ingestion import find_drift
from trainpipe_assets.data.validation_findings import Rejections, findings, message, newest_rejections
from trainpipe_assets.evaluation.intervals import rounded
from trainpipe_assets.pipeline.failures import explained, retry_policy
from trainpipe_assets.pipeline.keys import PipelineKeys
from trainpipe_assets.pipeline.metadata import bullets, markdown_table
from trainpipe_assets.pipeline.outputs import described_drift
from trainpipe_assets.pipeline.resources import Lake
from trainpipe_assets.settings import LOWER_IS_BETTER, PipelineSettings, SourceSettings
from trainpipe_assets.storage import base_models
from trainpipe_assets.storage.delta import Table

SHOWN_REFUSALS = 20


def build_checks(settings: PipelineSettings) -> list[dg.AssetChecksDefinition]:
    """The checks of one pipeline; all but those of the schema, the share of rejections, the chats and the gate are blocking."""
    keys = PipelineKeys(settings.key_prefix)
    retry = retry_policy(settings.automation)

    def check(asset: str, **options: Any) -> Callable[[Callable[..., dg.AssetCheckResult]], dg.AssetChecksDefinition]:
        declared = dg.asset_check(asset=keys[asset], retry_policy=retry, **options)
        return lambda compute: declared(explained()(compute))

    @check("raw_data", blocking=True, description="Each file's records are all there, each once.")
    def records_are_conserved(raw_data: Table) -> dg.AssetCheckResult:
        return _conserved(raw_data)

    @check("raw_data", description="The files have the columns that their source agreed on.")
    def schema_is_stable(raw_data: Table) -> dg.AssetCheckResult:
        return _stable(find_drift(raw_data, settings.source), settings.source)

    @check(
        "cleaned_features",
        blocking=True,
        additional_ins={"raw_data": dg.AssetIn(key=keys["raw_data"]), "rejected_rows": dg.AssetIn(key=keys["rejected_rows"])},
        description="Every raw record is either a cleaned example or a rejected row, and never both.",
    )
    def rows_are_conserved(cleaned_features: Table, raw_data: Table, rejected_rows: Table) -> dg.AssetCheckResult:
        return _partitioned(raw_data, cleaned_features=cleaned_features, rejected_rows=rejected_rows)

    @check("cleaned_features", blocking=True, description="No duplicate group has examples in two splits.")
    def splits_do_not_leak(cleaned_features: Table) -> dg.AssetCheckResult:
        leaking = groups_in_two_splits(cleaned_features.scan())
        shares = cleaned_features.scan().group_by("split").len().collect(engine="streaming")
        return dg.AssetCheckResult(passed=leaking == 0, metadata={"groups_in_two_splits": leaking, **dict(shares.iter_rows())})

    @check(
        "tokenized_dataset",
        blocking=True,
        additional_ins={"cleaned_features": dg.AssetIn(key=keys["cleaned_features"])},
        description="Every cleaned example is tokenized, once.",
    )
    def examples_are_conserved(tokenized_dataset: Table, cleaned_features: Table) -> dg.AssetCheckResult:
        return _partitioned(cleaned_features, tokenized_dataset=tokenized_dataset)

    @check(
        "tokenized_dataset",
        additional_ins={"cleaned_features": dg.AssetIn(key=keys["cleaned_features"])},
        description="The chat template of the base model takes every conversation.",
    )
    def chats_fit_the_template(lake: Lake, tokenized_dataset: Table, cleaned_features: Table) -> dg.AssetCheckResult:
        base = base_models.resolve(settings.model.base, lake.models)
        count, refused = refused_chats(tokenized_dataset.scan(), cleaned_features.scan(), base.folder, SHOWN_REFUSALS)
        return dg.AssetCheckResult(
            passed=count == 0,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"chats_refused": count, **({"refused": markdown_table(refused)} if count else {})},
        )

    @check("eval_report", description="The verdict of the gate on the newest evaluation.")
    def gate(eval_report: Table) -> dg.AssetCheckResult:
        newest = eval_report.scan().sort("evaluated_at").last().collect().row(0, named=True)
        found = json.loads(newest["gate_reasons"])
        gate = settings.evaluation.gate
        metric = gate.metric_of(settings.task)
        measured = json.loads(newest["metrics"]).get(metric)  # not of a model of another task
        bound = {"ceiling": gate.max_value} if metric in LOWER_IS_BETTER else {"floor": gate.min_value}
        return dg.AssetCheckResult(
            passed=newest["gate_passed"],
            severity=dg.AssetCheckSeverity.WARN,
            description=None if newest["gate_passed"] else " ".join(found),
            metadata={
                "reasons": bullets(found),
                **({metric: rounded(measured["value"])} if measured else {}),
                **bound,
                "model_uri": newest["model_uri"],
            },
        )

    @check(
        "cleaned_features",
        blocking=True,
        additional_ins={"raw_data": dg.AssetIn(key=keys["raw_data"]), "rejected_rows": dg.AssetIn(key=keys["rejected_rows"])},
        description="The validation rules of the pipeline are kept. Only a rule about all records whose severity is block can fail it.",
    )
    def validation_rules_are_kept(cleaned_features: Table, raw_data: Table, rejected_rows: Table) -> dg.AssetCheckResult:
        labels = settings.cleaning.labels or ()
        scans = (table.scan() for table in (raw_data, cleaned_features, rejected_rows))
        return _validated(findings(settings.validation.rules, labels, *scans))

    @check(
        "cleaned_features",
        additional_ins={"raw_data": dg.AssetIn(key=keys["raw_data"]), "rejected_rows": dg.AssetIn(key=keys["rejected_rows"])},
        description="Few of the records that came last are rejected for what they hold.",
    )
    def few_records_are_rejected(cleaned_features: Table, raw_data: Table, rejected_rows: Table) -> dg.AssetCheckResult:
        del cleaned_features
        return _few(newest_rejections(raw_data.scan(), rejected_rows.scan()), settings.validation.max_rejected_share)

    validation = [validation_rules_are_kept] if settings.validation.rules else []
    chats = [chats_fit_the_template] if settings.source.kind == "chat" else []
    return [
        *validation,
        records_are_conserved,
        schema_is_stable,
        rows_are_conserved,
        splits_do_not_leak,
        few_records_are_rejected,
        examples_are_conserved,
        *chats,
        gate,
    ]


def _conserved(raw: Table) -> dg.AssetCheckResult:
    files = files_of(raw.scan())
    expected = pl.col("last") - pl.when(pl.col("first") == 0).then(-1).otherwise(0)
    broken = files.filter((pl.col("rows") != pl.col("different")) | (pl.col("rows") != expected) | (pl.col("first") > 1))
    versions = files.group_by("source_file").len().filter(pl.col("len") > 1)
    return dg.AssetCheckResult(
        passed=broken.is_empty() and versions.is_empty(),
        metadata={
            "files": files.height,
            "rows": int(files["rows"].sum()),
            "unusable_records": int(files["problems"].sum()),
            "files_with_lost_or_doubled_records": broken["source_file"].to_list(),
            "files_in_two_versions": versions["source_file"].to_list(),
        },
    )


def _stable(drift: pl.DataFrame, source: SourceSettings) -> dg.AssetCheckResult:
    """Accepted drift is worth a warning when it arrives; quarantined drift as long as it lies there."""
    matters = drift.filter((pl.col("change") != "reordered") & (pl.col("newest") | (source.schema_drift != "accept")))
    return dg.AssetCheckResult(
        passed=matters.is_empty(), severity=dg.AssetCheckSeverity.WARN, metadata={"drift": source.schema_drift, **described_drift(drift)}
    )


def _few(found: Rejections, most: float) -> dg.AssetCheckResult:
    """Many rejections are rather a setting that is wrong, or a source that has changed, than so many bad records."""
    total = sum(found.by_rule.values())
    rules = ", ".join(f"{rule} {count:,}" for rule, count in found.by_rule.items())
    shares = [(rule, f"{count:,}", f"{count / found.records:.1%}") for rule, count in found.by_rule.items()]
    table = pl.DataFrame(shares, schema=dict.fromkeys(("rule", "records", "share"), pl.String), orient="row")
    return dg.AssetCheckResult(
        passed=found.share <= most,
        severity=dg.AssetCheckSeverity.WARN,
        description=None
        if found.share <= most
        else f"of the {found.records:,} records that came last {total:,} are rejected ({found.share:.1%}, validation.max_rejected_share is "
        f"{most:.1%}): {rules}. The table rejected_rows has the reason of each",
        metadata={
            "records_that_came_last": found.records,
            "rejected": total,
            "share": round(found.share, 4),
            **({"by_rule": markdown_table(table)} if total else {}),
        },
    )


def _validated(found: pl.DataFrame) -> dg.AssetCheckResult:
    """All rules in one table; what blocks is an error, what warns a warning."""
    blocking, warning = message(found, "block"), message(found, "warn")
    shown = found.with_columns(pl.col("kept").replace_strict([True, False], ["yes", "**no**"], return_dtype=pl.String))
    return dg.AssetCheckResult(
        passed=bool(found["kept"].all()),
        severity=dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN,
        description=f"validation rules are not kept: {blocking or warning}" if blocking or warning else None,
        metadata={
            "rules": markdown_table(shown),
            "rules_kept": int(found["kept"].sum()),
            "rules_not_kept": int((~found["kept"]).sum()),
            "records_rejected": int(found.filter(pl.col("severity") == "block")["records"].sum()),
            "records_with_warnings": int(found.filter(pl.col("severity") == "warn")["records"].sum()),
        },
    )


def _partitioned(whole: Table, **parts: Table) -> dg.AssetCheckResult:
    """Whether the keys of `whole` are those of `parts` put together, none missing, none twice, none from elsewhere."""
    found = partition(whole.scan(), pl.concat([part.scan().select("row_id") for part in parts.values()]))
    counts = asdict(found)
    rows = {f"rows_{name}": table.rows for name, table in (("upstream", whole), *parts.items())}
    return dg.AssetCheckResult(passed=not any(counts.values()), metadata={**rows, **counts})
