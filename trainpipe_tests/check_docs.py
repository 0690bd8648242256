"""Every relative link, its heading, and every `make` target that the documents name exist, and every decision is in their index."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)")
TARGET = re.compile(r"`make ([a-z0-9-]+)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def problems() -> Iterator[str]:
    """What is wrong, one line each."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]):
        text, name = page.read_text(), page.relative_to(ROOT)
        for link, heading in LINK.findall(text):
            target = page.parent / link if link else page
            if not target.exists():
                yield f"{name}: link to {link}, which does not exist"
            elif heading and target.suffix == ".md" and heading not in _anchors(target):
                yield f"{name}: link to {link}#{heading}, a heading that {target.name} does not have"
        yield from (
            f"{name}: `make {target}`, which the Makefile does not have" for target in TARGET.findall(text) if target not in targets
        )
    index = (ROOT / "docs" / "README.md").read_text()
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    yield from (f"docs/README.md: {decision.name} is not in the index" for decision in decisions if decision.name not in index)


def _anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in HEADING.findall(page.read_text())}


if __name__ == "__main__":
    lines = list(problems())
    print("\n".join(lines) or "all links, headings, targets and decisions of the documents exist")
    sys.exit(bool(lines))
