"""When a pipeline runs by itself: which cron expressions are taken."""

import dagster as dg
import pytest

from trainpipe_assets.settings import AutomationSettings, MaintenanceSettings


@pytest.mark.parametrize(
    "expression", ["* * * *", "61 3 * * *", "", "0 0 31 2 *", "every day", "@reboot", "0 0 0 * * *", "0 0 LW * *", "0 0 * * 5L"]
)
def test_what_never_comes_is_no_schedule(expression: str) -> None:
    for settings in (AutomationSettings, MaintenanceSettings):
        with pytest.raises(ValueError, match=r"is no cron expression that ever comes; minute, hour"):
            settings(schedule=expression)


@pytest.mark.parametrize(
    "expression", ["0 3 * * *", "*/15 8-18 * * MON-FRI", "0 0 29 2 *", "@daily", "0 9 1,15 * *", "@Midnight", "0 0 ? * *", None]
)
def test_what_dagster_takes_is_taken(expression: str | None) -> None:
    if expression is not None:
        dg.ScheduleDefinition(name="nightly", job_name="retrain", cron_schedule=expression)
    assert AutomationSettings(schedule=expression).schedule == expression
