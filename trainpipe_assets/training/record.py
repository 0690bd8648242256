"""What `training.json` says of a finished training."""

import os
from typing import Any

from trainpipe_assets.training.compute import describe_hardware, library_versions
from trainpipe_assets.training.crowding import describe_crowding
from trainpipe_assets.training.distribution import held_bytes
from trainpipe_assets.training.efficiency import describe_efficiency, operations_per_token
from trainpipe_assets.training.job import Job
from trainpipe_assets.training.processes import together


def describe_training(job: Job) -> dict[str, Any]:
    """Its history, metrics, settings, hardware and efficiency."""
    spec, state, phases = job.spec, job.state, job.meter.timeline.seconds()
    tokens, operations = job.meter.tokens, operations_per_token(job.model)
    own, everything = job.cores.in_use()
    crowding = describe_crowding(together(job.accelerator, own), everything, os.cpu_count() or 1)
    processes = job.accelerator.num_processes
    return {
        "fingerprint": spec.fingerprint,
        "history": [record.model_dump() for record in state.history],
        "validations": [validation.model_dump() for validation in state.validations],
        "best": state.best.model_dump() if state.best else None,
        "warnings": list(state.warnings.values()),
        "stopped_early": len(state.validations) < spec.training.epochs,
        "resumed_from_step": job.resumed_from,
        "examples": {"train": job.train.examples, "validation": job.validation.examples},
        "settings": spec.model_dump(mode="json", include={"task", "labels", "model", "training", "compute"}),
        "distribution": {"processes": processes, "sharding": job.distribution.kind, **held_bytes(job.model, job.stepper.optimizer)},
        "hardware": {"processes": processes, **describe_hardware(job.accelerator.device)},
        "versions": library_versions(),
        "timing": job.meter.summary(phases),
        "efficiency": describe_efficiency(phases, tokens, operations, job.rate, spec.compute.price_per_hour, crowding, job.meter.earlier),
    }
