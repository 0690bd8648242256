"""trainpipe: from landed files to an evaluated, gated model, as one Dagster asset graph."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainpipe_assets.pipeline.component import TrainingPipeline

__version__ = "0.1.0"
__all__ = ["TrainingPipeline", "__version__"]


def __getattr__(name: str) -> object:
    # The training program imports this package without Dagster; the component is looked up only where a defs.yaml names it.
    if name == "TrainingPipeline":
        from trainpipe_assets.pipeline.component import TrainingPipeline

        return TrainingPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    # Dagster lists the components of a package by what dir() names.
    return sorted({*globals(), *__all__})
