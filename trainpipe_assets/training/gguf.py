"""`python -m trainpipe_assets.training.gguf FILE FOLDER`: a GGUF file as a model folder, so that the rest knows one format only.

The weights are those that the quantized ones stand for, in float32; transformers does the conversion, of model and tokenizer.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

import torch

from trainpipe_assets.training.errors import first_line


def convert(file: Path, folder: Path) -> None:
    """Write the model and the tokenizer in the GGUF `file` into the new folder `folder`.

    Raises:
        ValueError: the file holds no language model that transformers knows.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        quantized = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(f"{file} cannot be read as a model: {first_line(error)}") from error
    described = quantized.config.to_dict()
    described.pop("quantization_config", None)
    config = AutoConfig.for_model(described.pop("model_type"), **described)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]  # transformers lacks annotations
    model.load_state_dict(quantized.state_dict())
    model.save_pretrained(folder, max_shard_size=2**60)
    tokenizer.save_pretrained(folder)


def main() -> int:
    """Run the program; exit code 2 for a file that cannot be converted."""
    parser = argparse.ArgumentParser("python -m trainpipe_assets.training.gguf", description="Convert a GGUF file into a model folder.")
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    os.environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"})
    logging.disable(logging.WARNING)
    try:
        convert(options.file, options.folder)
    except ValueError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
