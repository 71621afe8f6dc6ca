"""Make the atlas of the procedural world: `python -m mmdiff_core.world.build ATLAS.npz`.

Fetches the artwork with npm (about 30 MB, once), draws it, drops what looks the same, and splits it. Needs the extra
`[world]` and Node.js.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from ..errors import MMDiffError
from .atlas import Atlas, Sprite
from .likeness import near_duplicates, same_drawing
from .packages import PACKAGES, fetch
from .splits import SPLITS, assign_splits


def build(packages: Path, size: int) -> tuple[Atlas, int]:
    """The atlas of all artwork, longer sides of `size` pixels, and how many near-duplicates were left out.

    packages: folder of the packages' archives; those that are missing are fetched into it. Raises MMDiffError where
    they can't be had, or the extra is not installed.
    """
    try:
        from .artwork import drawings, icon_names
    except ModuleNotFoundError as error:
        raise MMDiffError(
            f"Drawing the artwork needs {error.name}, which is not installed: pip install '.[world]' in a checkout"
        ) from error
    archives = {package: fetch(package, packages) for package in PACKAGES}
    names = icon_names(list(archives.values()))
    sprites, pictures = [], []
    for package, archive in archives.items():
        for subject, picture in drawings(package, archive, names, size):
            _, determiner, name, category = subject
            sprites.append(Sprite(name, determiner, category, package.style, package.family, package.licence))
            pictures.append(picture)

    individual = np.array([f"{sprite.name}@{sprite.family}" for sprite in sprites])
    twins = near_duplicates(pictures) & (individual[:, None] != individual)
    kept: list[int] = []
    for index in range(len(sprites)):
        if not twins[index, kept].any():
            kept.append(index)
    dropped = len(sprites) - len(kept)
    sprites, pictures = [sprites[index] for index in kept], [pictures[index] for index in kept]

    alike = {(sprites[one].name, sprites[other].name) for one, other in np.argwhere(same_drawing(pictures))}
    share_alike = {package.family for package in PACKAGES if package.share_alike}
    splits = assign_splits(sprites, sorted(alike), share_alike)
    shown = [index for index, split in enumerate(splits) if split]
    return Atlas.of([sprites[i]._replace(split=splits[i]) for i in shown], [pictures[i] for i in shown]), dropped


def summary(atlas: Atlas) -> str:
    """A table of the splits, and one of the styles."""
    lines = ["split      names  individuals  sprites"]
    for split in SPLITS:
        identities = atlas.identities(split)
        names = len({identity.name for identity in identities})
        lines.append(f"{split:10} {names:5}  {len(identities):11}  {sum(len(i.renditions) for i in identities):7}")
    styles = Counter((sprite.style, sprite.licence) for sprite in atlas.sprites)
    lines += [f"{style:12} {number:5}  {licence}" for (style, licence), number in styles.items()]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mmdiff_core.world.build", description=__doc__.split("\n")[0])
    parser.add_argument("atlas", type=Path, help="the .npz file to write")
    parser.add_argument("--packages", type=Path, help="folder of the packages' archives (default: beside the atlas)")
    parser.add_argument("--size", type=int, default=96, help="longer side of a sprite, pixels (default: 96)")
    arguments = parser.parse_args()
    try:
        atlas, dropped = build(arguments.packages or arguments.atlas.parent / "packages", arguments.size)
        atlas.save(arguments.atlas)
    except MMDiffError as error:
        print(error, file=sys.stderr)
        return 1
    print(summary(atlas))
    print(
        f"{dropped} near-duplicates left out; {arguments.atlas} ({arguments.atlas.stat().st_size / 1e6:.1f} MB), "
        f"digest {atlas.digest()}."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
