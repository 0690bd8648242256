"""What happens by itself."""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field

from trainpipe_assets.settings.base import Settings


def _known(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError, ModuleNotFoundError):
        raise ValueError("there is no such time zone; it is called by its place, e.g. Europe/Berlin, or UTC") from None
    return name


NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_UNKNOWN_TO_DAGSTER = re.compile(r"LW|\dL|#.*,|,.*#")


def _comes(expression: str) -> str:
    try:
        minute, hour, day, month, weekday = NAMED.get(expression.lower(), expression).replace("?", "*").upper().split()
        next(CronSim(f"{minute} {hour} {day} {month} {weekday}", datetime(2026, 1, 1, tzinfo=UTC)))
        known = not _UNKNOWN_TO_DAGSTER.search(f"{day} {weekday}")
    except (ValueError, CronSimError, StopIteration):
        known = False
    if not known:
        raise ValueError(
            f"{expression!r} is no cron expression that ever comes; minute, hour, day of the month, month and day of the week are "
            "expected, as in '0 3 * * *' for every night at three"
        )
    return expression


TimeZone = Annotated[str, AfterValidator(_known)]
Cron = Annotated[str, AfterValidator(_comes)]


class AutomationSettings(Settings):
    """When the pipeline runs by itself."""

    retrain: Literal["on_arrival", "on_drift"] = Field(
        default="on_arrival",
        description="What the sensor trains for: on_arrival for any new data; on_drift only where it differs from what the current model "
        "was trained on. New data is ingested, cleaned and tokenized either way.",
    )
    min_new_rows: int = Field(default=1, ge=1, description="The sensor waits until so many rows are pending; the schedule does not.")
    sensor_seconds: int = Field(default=30, ge=5, le=86_400, description="Seconds between looks at the landing folder.")
    schedule: Cron | None = Field(
        default="0 3 * * *", description="Cron expression of the nightly run, which trains only with retrain: on_arrival; null for none."
    )
    timezone: TimeZone = Field(default="UTC", description="Time zone of the schedules, that of maintenance too, e.g. Europe/Berlin.")
    enabled: bool = Field(default=True, description="Start the sensor and the schedules, that of maintenance too, switched on.")
    freshness_hours: float | None = Field(
        default=48.0, ge=0.02, le=87_600, description="The report is expected to be renewed within so many hours; null for no expectation."
    )
    max_retries: int = Field(
        default=3, ge=0, le=20, description="Retries, with back-off, of a step that failed for what no person has to mend."
    )


class MaintenanceSettings(Settings):
    """Housekeeping of the tables: compaction, checkpoints of the log, and the deletion of files that only old versions use."""

    schedule: Cron | None = Field(default="0 4 * * 0", description="Cron expression of the maintenance job; null for none.")
    retention_hours: int = Field(
        default=168,
        ge=24,
        le=87_600,
        description="Versions replaced within so many hours stay readable; those that a model was made from, as long as its folder is "
        "there; those that an evaluation read, always. Checkpoints that no training went on from for so long are removed.",
    )
