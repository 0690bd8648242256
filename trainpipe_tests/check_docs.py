"""Every relative link and every `make` target that the documents name exists."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")
TARGET = re.compile(r"`make ([a-z0-9-]+)")


def problems() -> list[str]:
    """What is wrong, one line each."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    found = []
    for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]):
        text, name = page.read_text(), page.relative_to(ROOT)
        found += [f"{name}: link to {link}, which does not exist" for link in LINK.findall(text) if not (page.parent / link).exists()]
        found += [f"{name}: `make {target}`, which the Makefile does not have" for target in TARGET.findall(text) if target not in targets]
    return found


if __name__ == "__main__":
    lines = problems()
    print("\n".join(lines) or "all links and targets of the documents exist")
    sys.exit(bool(lines))
