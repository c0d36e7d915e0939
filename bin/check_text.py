#!/usr/bin/env python3
"""Fails on private words where the field has a term, on broken Markdown links, and on merge-conflict markers.

All files that git tracks are checked, their names included.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORDS = (
    "house", "houses", "room", "rooms", "door", "doors", "knock", "knocks", "knocked", "baton", "crew", "heir", "heirs", "worn", "bury", "buried",
    "forsaken", "clothe", "clothes", "newborn", "rehearsal", "rehearse", "rehearses", "rehearsed", "lookout", "lookouts", "glance", "glances", "whoever", "by and by",
)  # fmt: skip
BANNED = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(WORDS)})(?![a-z])", re.IGNORECASE)
EXCEPTIONS = {
    "bin/check_text.py": "the list of the words",
}
"""Files that may use the words, each with the reason."""

CONFLICT = re.compile(r"^(?:<{7} |\|{7} |={7}$|>{7} )", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [Path(name) for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def text_of(file: Path) -> str | None:
    try:
        return (ROOT / file).read_text()
    except UnicodeDecodeError:
        return None


def banned_words(files: list[Path]) -> list[str]:
    found = []
    for file in files:
        if str(file) in EXCEPTIONS:
            continue
        if word := BANNED.search(str(file)):
            found.append(f"{file}: the name has the private word '{word[0]}'; use the field's term")
        for number, line in enumerate((text_of(file) or "").splitlines(), 1):
            if word := BANNED.search(line):
                found.append(f"{file}:{number}: private word '{word[0]}'; use the field's term")
    return found


def conflict_markers(files: list[Path]) -> list[str]:
    found = []
    for file in files:
        text = text_of(file) or ""
        for marker in CONFLICT.finditer(text):
            number = text.count("\n", 0, marker.start()) + 1
            found.append(
                f"{file}:{number}: merge-conflict marker '{marker[0].strip()}'; resolve the conflict"
            )
    return found


def anchors(file: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = HEADING.findall(
        re.sub(r"^```.*?^```", "", (ROOT / file).read_text(), flags=re.MULTILINE | re.DOTALL)
    )
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in plain}


def broken_links(files: list[Path]) -> list[str]:
    found = []
    for page in (file for file in files if file.suffix == ".md"):
        for groups in LINK.findall(CODE.sub("", (ROOT / page).read_text())):
            link = groups[0] or groups[1]
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (ROOT / page.parent / path).resolve() if path else ROOT / page
            if not target.exists():
                found.append(f"{page}: link to a file that does not exist: {link}")
            elif anchor and target.suffix == ".md" and anchor not in anchors(target.relative_to(ROOT)):
                found.append(f"{page}: link to a heading that does not exist: {link}")
    return found


def main() -> int:
    files = tracked()
    problems = banned_words(files) + conflict_markers(files) + broken_links(files)
    print(*problems, sep="\n", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
