"""The pipeline: five assets in flow order, what was rejected on the way, and whether what arrives has drifted.

Each asset loads its inputs, calls one function of the core and returns a value with metadata. How values are stored is
`io_managers.py`'s; when assets run is `automation.py`'s; what must hold of them is `checks.py`'s.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import dagster as dg

from trainpipe_assets.data import cleaning, ingestion
from trainpipe_assets.data.encoding import encoder_version, load_encoder
from trainpipe_assets.data.sources import list_landed, wait_until_settled
from trainpipe_assets.data.splitting import require_trainable, split_sizes
from trainpipe_assets.data.validation_findings import require_columns
from trainpipe_assets.evaluation.drift import VERSION as DRIFT_VERSION
from trainpipe_assets.pipeline import descriptions
from trainpipe_assets.pipeline.current_model import current_model
from trainpipe_assets.pipeline.drift import CHECK, COMPARISON, compare_with_model
from trainpipe_assets.pipeline.evaluation import EVALUATION, evaluate_model
from trainpipe_assets.pipeline.evaluation import VERSION as EVALUATION_VERSION
from trainpipe_assets.pipeline.failures import explained, retry_policy
from trainpipe_assets.pipeline.io_managers import TrainedModel, kept_together, upstream
from trainpipe_assets.pipeline.keys import PipelineKeys
from trainpipe_assets.pipeline.launcher import Launcher, read_training_record
from trainpipe_assets.pipeline.outputs import (
    arrival_profile,
    arrival_rejections,
    described_drift,
    model_output,
    shown_before,
    told_of_splits,
    versioned,
)
from trainpipe_assets.pipeline.provenance import TRAINING_VERSION, TrainingPlan, dataset_digest, forced, require_made_by, stated
from trainpipe_assets.pipeline.resources import Lake
from trainpipe_assets.pipeline.run_config import TrainingRunConfig, training_config
from trainpipe_assets.settings import PipelineSettings
from trainpipe_assets.storage import base_models
from trainpipe_assets.storage.artifacts import Artifact, read_manifest
from trainpipe_assets.storage.delta import Table, find
from trainpipe_assets.storage.increments import Increment, Upstream
from trainpipe_assets.storage.scratch import scratch_folder
from trainpipe_assets.storage.uris import join


def build_assets(name: str, settings: PipelineSettings) -> list[dg.AssetsDefinition]:
    """The assets of the pipeline `name`, each named as in the lineage graph.

    One long function on purpose: read from top to bottom it is the product.
    """
    keys = PipelineKeys(settings.key_prefix)
    if TYPE_CHECKING:
        TrainingConfig: TypeAlias = TrainingRunConfig
    else:  # one field for each hyper-parameter, with the YAML's value as default, so that the Launchpad shows them
        TrainingConfig = training_config(settings.training)
    common: dict[str, Any] = {"group_name": name, "owners": list(settings.owners) or None}
    private = bool(settings.cleaning.redact)  # then texts as they arrived are not shown
    retry = retry_policy(settings.automation)
    hours = settings.automation.freshness_hours
    freshness = None if hours is None else dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=hours))

    @dg.asset(
        key=keys["raw_data"],
        **common,
        **descriptions.raw_data(private=private),
        io_manager_key="delta_io_manager",
        code_version=stated(ingestion.VERSION, settings.source),
        retry_policy=retry,
    )
    def raw_data(context: dg.AssetExecutionContext, lake: Lake) -> dg.Output[Increment]:
        with explained():
            landing = lake.landing_uri(settings.source)
            landed = list_landed(landing, settings.source)
            ready, growing = wait_until_settled(landing, landed, settings.source, now=time.time(), sleep=time.sleep)
            waiting = frozenset(file.path for file in growing)
            uri = lake.table_uri(context.asset_key)
            found = ingestion.ingest(uri, find(uri), [*ready, *growing], waiting, settings.source, datetime.now(UTC))
        files = {"files_landed": len(landed), "files_still_arriving": sorted(waiting), "files_unreadable_now": list(found.barred)}
        metadata = {"landing": landing, **files, **described_drift(found.drift), **told_of_splits(landed, settings.split)}
        return versioned(found.increment, metadata)

    @dg.multi_asset(
        name="__".join((*settings.key_prefix, "cleaned_features")),
        outs={
            output: dg.AssetOut(
                key=keys[output],
                is_required=False,
                io_manager_key="delta_io_manager",
                code_version=stated(cleaning.VERSION, cleaning.determinants(settings)),
                **common,
                **descriptions.clean(output, keys, private=private),
            )
            for output in ("cleaned_features", "rejected_rows")
        },
        ins={"raw_data": upstream(keys["raw_data"], cleaned_features=keys["cleaned_features"], rejected_rows=keys["rejected_rows"])},
        can_subset=True,
        retry_policy=retry,
    )
    def cleaned_features(context: dg.AssetExecutionContext, lake: Lake, raw_data: Upstream) -> Iterator[dg.Output[Increment]]:
        with ExitStack() as until_committed:
            with explained():
                scratch = until_committed.enter_context(scratch_folder(Path(lake.scratch)))
                rules = settings.validation.record_rules
                require_columns(settings.validation.rules, raw_data.table.scan(), settings.source)
                changes = raw_data.changes(**cleaning.determinants(settings))
                examples, rejected = cleaning.clean_changes(
                    changes, settings.cleaning, settings.split, scratch, settings.source.kind, rules, settings.task
                )
                metadata = {**cleaning.summary(examples, settings.cleaning), **arrival_profile(examples, settings.task)}
                outputs = (
                    versioned(rejected, arrival_rejections(rejected), output_name="rejected_rows"),
                    versioned(examples, metadata, output_name="cleaned_features"),
                )
            yield from kept_together(context, *outputs)

    @dg.asset(
        key=keys["drift_report"],
        **common,
        **descriptions.drift_report(),
        code_version=stated(DRIFT_VERSION, settings.drift),
        ins={"cleaned_features": dg.AssetIn(key=keys["cleaned_features"])},
        io_manager_key="delta_io_manager",
        check_specs=[dg.AssetCheckSpec(CHECK, asset=keys["drift_report"], description=descriptions.NO_DRIFT)],
        op_tags={"dagster/priority": "1"},  # told before the training that may take hours
        retry_policy=retry,
    )
    def drift_report(context: dg.AssetExecutionContext, lake: Lake, cleaned_features: Table) -> Iterator[Any]:
        with explained():
            model = current_model(find(lake.table_uri(keys["eval_report"])), settings.task, before_run=context.run_id)
            uri = lake.table_uri(context.asset_key)
            done = compare_with_model(
                history_uri=uri,
                model=model,
                examples=cleaned_features,
                settings=settings.drift,
                split=settings.split,
                now=datetime.now(UTC),
            )
        yield versioned(done.increment, {**shown_before(context, COMPARISON, done.metadata.get(COMPARISON)), **done.metadata})
        yield done.check

    @dg.asset(
        key=keys["tokenized_dataset"],
        **common,
        **descriptions.tokenized_dataset(keys, settings.task),
        ins={"cleaned_features": upstream(keys["cleaned_features"], tokenized_dataset=keys["tokenized_dataset"])},
        io_manager_key="delta_io_manager",
        code_version=stated(encoder_version(settings.task), settings.model),
        retry_policy=retry,
    )
    def tokenized_dataset(lake: Lake, cleaned_features: Upstream) -> dg.Output[Increment]:
        with explained():
            base = base_models.resolve(settings.model.base, lake.models)
            encoder = load_encoder(base.folder, settings, cleaned_features.table.scan())
            changes = cleaned_features.changes(**encoder.determinants)
            increment = encoder.encode(changes)
        return versioned(increment, {"base_model": base.name, **encoder.description})

    @dg.asset(
        key=keys["fine_tuned_model"],
        **common,
        **descriptions.fine_tuned_model(),
        code_version=stated(TRAINING_VERSION, settings.model, settings.training),
        ins={"tokenized_dataset": dg.AssetIn(key=keys["tokenized_dataset"]), "cleaned_features": dg.AssetIn(key=keys["cleaned_features"])},
        io_manager_key="model_io_manager",
        retry_policy=retry,
        pool="gpu",
    )
    def fine_tuned_model(
        context: dg.AssetExecutionContext,
        config: TrainingConfig,
        lake: Lake,
        launcher: dg.ResourceParam[Launcher],
        tokenized_dataset: Table,
        cleaned_features: Table,
    ) -> dg.Output[Any]:  # Artifact or TrainedModel; Dagster takes no union
        with explained():
            base = base_models.resolve(settings.model.base, lake.models)
            encoder = load_encoder(base.folder, settings, cleaned_features.scan())
            require_made_by(settings, tokenized_dataset, cleaned_features, encoder)
            sizes = split_sizes(tokenized_dataset.scan(), settings.model.max_length)
            warnings = require_trainable(sizes, settings.task, encoder.names, settings.split)
            plan = TrainingPlan(
                task=settings.task,
                dataset=tokenized_dataset,
                digest=dataset_digest(tokenized_dataset),
                labels=encoder.names,
                base=base,
                model=settings.model,
                training=config.within(settings),
            )
            if config.force:
                plan = forced(plan, context.run, lake.models_uri(context.asset_key))
            present = read_manifest(join(lake.models_uri(context.asset_key), plan.fingerprint))
            if present is not None:
                context.log.info(f"nothing to train: this very training made {present.uri} before (force trains it anew)")
                return model_output(context, present, sizes, warnings)
            work_dir = launcher.work_dir(plan.fingerprint)
            checkpoints = lake.checkpoints_uri(context.asset_key, plan.fingerprint)
            folder = launcher.train(context, plan.spec(launcher.compute, work_dir, checkpoints))
            tables = {"tokenized_dataset": tokenized_dataset, "cleaned_features": cleaned_features}
            manifest = plan.manifest(read_training_record(folder), tables, context.run_id, datetime.now(UTC))
        return model_output(context, TrainedModel(folder, manifest, scratch=work_dir), sizes, warnings)

    @dg.asset(
        key=keys["eval_report"],
        **common,
        **descriptions.eval_report(),
        code_version=stated(EVALUATION_VERSION, settings.evaluation),
        ins={name: dg.AssetIn(key=keys[name]) for name in ("fine_tuned_model", "tokenized_dataset", "cleaned_features")},
        io_manager_key="delta_io_manager",
        freshness_policy=freshness,
        retry_policy=retry,
        pool="gpu",
    )
    def eval_report(
        context: dg.AssetExecutionContext,
        lake: Lake,
        launcher: dg.ResourceParam[Launcher],
        fine_tuned_model: Artifact,
        tokenized_dataset: Table,
        cleaned_features: Table,
    ) -> dg.Output[Increment]:
        with explained():
            done = evaluate_model(
                pipeline=name,
                history_uri=lake.table_uri(context.asset_key),
                model=fine_tuned_model,
                tokens=tokenized_dataset,
                texts=cleaned_features,
                task=settings.task,
                compute=launcher.compute,
                settings=settings.evaluation,
                base=partial(base_models.resolve, settings.model.base, lake.models),
                now=datetime.now(UTC),
                min_examples=settings.split.min_examples,
            )
        return versioned(done.increment, {**shown_before(context, EVALUATION, done.metadata[EVALUATION]), **done.metadata})

    monitors = [drift_report] if settings.drift.enabled else []
    return [raw_data, cleaned_features, *monitors, tokenized_dataset, fine_tuned_model, eval_report]
