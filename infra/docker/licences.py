"""Prints the licence of each installed package, then the texts: `python licences.py`, in the image's environment.

It fails if a package names no licence, so that no image contains one unnoticed.
"""

import re
import sys
from collections import defaultdict
from importlib.metadata import Distribution, distributions
from pathlib import Path

LICENCE_FILE = re.compile(r"(licen[cs]e|copying|notice|authors|third.?party)", re.IGNORECASE)
RULE = "=" * 100
LONGEST_NAME = 100
"""Some packages put the whole text into the field of the name."""


def name_of(package: Distribution) -> str:
    """Return what a package calls its licence: an SPDX expression, a name, or its classifiers. Empty if nothing."""
    fields = package.metadata
    if "License-Expression" in fields:
        return fields["License-Expression"]
    classifiers = [one for one in fields.get_all("Classifier") or [] if one.startswith("License :: ")]
    text = fields["License"].strip() if "License" in fields else ""
    if text and len(text) < LONGEST_NAME:
        return text
    return " and ".join(one.rpartition(" :: ")[2] for one in classifiers) or text.partition("\n")[0]


def texts_of(package: Distribution) -> list[str]:
    """Return the texts of a package's licence files."""
    named = [one for one in package.files or [] if ".dist-info" in str(one) and LICENCE_FILE.search(one.name)]
    return [Path(str(one.locate())).read_text(encoding="utf-8", errors="replace").strip() for one in named]


def main() -> None:
    """Print the table and the texts; each text once, under the packages that have it."""
    packages = sorted(distributions(), key=lambda package: package.name.lower())
    unnamed = [package.name for package in packages if not name_of(package) and not texts_of(package)]
    if unnamed:
        sys.exit(f"no licence is named by: {', '.join(unnamed)}")
    owners: dict[str, list[str]] = defaultdict(list)
    for package in packages:
        label = f"{package.name} {package.version}"
        print(f"{label:<48} {name_of(package) or 'see its text below'}")
        for text in texts_of(package):
            owners[text].append(label)
    for text, labels in owners.items():
        print(f"\n{RULE}\n{', '.join(labels)}\n{RULE}\n\n{text}")


if __name__ == "__main__":
    main()
