"""Draw the bundled subjects, of names in the test split: `python -m recipes.demo.subjects PACKAGES`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mmdiff_core.demo import SUBJECTS
from mmdiff_core.world.artwork import drawings, icon_names
from mmdiff_core.world.packages import PACKAGES, fetch

CHOSEN = {
    "penguin": "fluent-3d",
    "fire engine": "noto",
    "owl": "noto",
    "popcorn": "noto",
    "ladybug": "noto",
    "kiwi": "noto",
}
DEMO = ("penguin", "fire engine")
SIZE = 256


def main(packages: Path) -> None:
    archives = {package: fetch(package, packages) for package in PACKAGES}
    names = icon_names(list(archives.values()))
    SUBJECTS.mkdir(exist_ok=True)
    about = {}
    for package, archive in archives.items():
        if package.style not in CHOSEN.values():
            continue
        for (_, _, name, _), picture in drawings(package, archive, names, SIZE):
            if CHOSEN.get(name) == package.style:
                picture.save(SUBJECTS / f"{name}.png", optimize=True)
                about[name] = {"credit": package.credit, "licence": package.licence}
    content = {"demo": [f"{name}.png" for name in DEMO], "drawings": dict(sorted(about.items()))}
    (SUBJECTS / "subjects.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m recipes.demo.subjects", description=__doc__)
    parser.add_argument("packages", type=Path, help="folder of the artwork's archives")
    main(parser.parse_args().packages)
