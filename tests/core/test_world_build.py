"""The atlas from packages as npm delivers them, small ones made here."""

import base64
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

pytest.importorskip("resvg_py")

from mmdiff_core.world import artwork, build, packages
from mmdiff_core.world.atlas import Atlas

SUBJECTS = artwork.named_subjects()[::12]


def svg(number: int) -> str:
    """A drawing unlike those of other numbers: a random polygon on a random one."""
    random = np.random.default_rng(number)
    body = ""
    for _ in range(2):
        points = " ".join(f"{x},{y}" for x, y in random.integers(0, 33, (5, 2)))
        body += f'<polygon points="{points}" fill="#{random.integers(0x333333, 0xFFFFFF):06x}"/>'
    return f'<rect x="{number % 7}" y="{number % 5}" width="{20 + number % 6}" height="22" fill="#345"/>{body}'


def archive(
    folder: Path, name: str, style: str, family: str, licence: str, files: dict[str, bytes]
) -> packages.Package:
    path = folder / f"{name}-1.0.0.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for member, content in files.items():
            entry = tarfile.TarInfo(f"package/{member}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    return packages.Package(name, "1.0.0", digest, style, family, licence, "some art")


def icons(slugs: dict[str, str], seed: int, **more) -> bytes:
    bodies = {name: {"body": svg(seed + number)} for number, name in enumerate(slugs.values())}
    return json.dumps({"icons": bodies, "width": 32, "height": 32, **more}).encode()


@pytest.fixture
def art(tmp_path, monkeypatch) -> Path:
    """3D pictures, named icons of the same subjects, more of those, a share-alike set, and a copy of the second."""
    slugs = {subject.code: subject.name.replace(" ", "-").lower() for subject in SUBJECTS}
    chars = json.dumps({code.replace("-", "-fe0f-"): slug for code, slug in slugs.items()}).encode()
    solid = {}
    for number, code in enumerate(slugs):
        picture = Image.new("RGBA", (64, 64))
        points = np.random.default_rng(4000 + number).integers(0, 64, (6, 2)).ravel().tolist()
        ImageDraw.Draw(picture).polygon(points, tuple(255 * (number >> bit & 1) for bit in range(3)))
        ImageDraw.Draw(picture).rectangle((20, 4 + number % 9, 40 + number % 11, 60), (90, 200, 90, 255))
        content = io.BytesIO()
        picture.save(content, "WEBP", lossless=True)
        solid[f"assets/{code}-fe0f.webp"] = content.getvalue()
    # One subject looks the same in both renditions, and keeps both.
    twin, name = next(iter(slugs.items()))
    content = io.BytesIO()
    artwork._rasterised(json.loads(icons(slugs, 0)), name).save(content, "WEBP", lossless=True)
    solid[f"assets/{twin}-fe0f.webp"] = content.getvalue()
    compact = {code: slug.replace("-", "") for code, slug in slugs.items()}
    monkeypatch.setattr(
        build,
        "PACKAGES",
        (
            archive(tmp_path, "solid", "fluent-3d", "fluent", "MIT", solid),
            archive(tmp_path, "flat", "flat", "fluent", "MIT", {"icons.json": icons(slugs, 0), "chars.json": chars}),
            archive(tmp_path, "two", "two", "two", "Apache-2.0", {"icons.json": icons(slugs, 2000)}),
            archive(tmp_path, "three", "three", "three", "CC-BY-4.0", {"icons.json": icons(compact, 3000)}),
            archive(tmp_path, "free", "free", "free", "CC-BY-SA-4.0", {"icons.json": icons(slugs, 1000)}),
            archive(tmp_path, "copy", "copy", "copy", "CC-BY-4.0", {"icons.json": icons(compact, 0)}),
        ),
    )
    return tmp_path


def test_the_atlas_joins_renditions_drops_copies_and_keeps_share_alike_for_tests(art, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["build", str(art / "atlas.npz"), "--packages", str(art), "--size", "48"])
    assert build.main() == 0
    atlas = Atlas.load(art / "atlas.npz")
    assert {sprite.style for sprite in atlas.sprites} == {"fluent-3d", "flat", "two", "three", "free"}, (
        "the copy adds nothing"
    )
    assert {sprite.split for sprite in atlas.sprites if sprite.style == "free"} == {"style"}
    assert all(max(sprite.width, sprite.height) == 48 for sprite in atlas.sprites)
    for split in ("train", "test"):
        for identity in atlas.identities(split):
            styles = {atlas.sprites[index].style for index in identity.renditions}
            assert styles == ({"fluent-3d", "flat"} if identity.family == "fluent" else {identity.family})
    printed = capsys.readouterr().out
    assert f"{len(SUBJECTS)} near-duplicates left out" in printed and atlas.digest() in printed
    assert {name.name for name in SUBJECTS} >= {sprite.name for sprite in atlas.sprites}


def test_an_alias_shows_its_parents_drawing(tmp_path):
    subject = SUBJECTS[3]
    content = json.dumps(
        {"icons": {"real": {"body": svg(4), "width": 32, "height": 32}}, "aliases": {"other": {"parent": "real"}}}
    ).encode()
    package = archive(tmp_path, "aliased", "aliased", "aliased", "MIT", {"icons.json": content})
    ((found, sprite),) = artwork.drawings(package, tmp_path / package.file_name, {subject.code: {"other"}}, 40)
    assert found == subject and max(sprite.size) == 40 and sprite.mode == "RGBA"


def test_a_drawing_is_cut_to_its_outline_and_a_thin_one_left_out():
    picture = Image.new("RGBA", (100, 100))
    picture.paste((9, 9, 9, 255), (30, 20, 60, 80))
    assert artwork.cut(picture, 48).size == (24, 48)
    thin = Image.new("RGBA", (100, 100))
    thin.paste((9, 9, 9, 255), (48, 0, 51, 100))
    assert artwork.cut(thin, 48) is None and artwork.cut(Image.new("RGBA", (9, 9)), 48) is None


def test_a_wrong_archive_and_a_missing_extra_get_a_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / packages.PACKAGES[0].file_name).write_bytes(b"something else")
    monkeypatch.setattr(sys, "argv", ["build", str(tmp_path / "atlas.npz"), "--packages", str(tmp_path)])
    assert build.main() == 1 and "is not the pinned archive" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "mmdiff_core.world.artwork")
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    assert build.main() == 1 and "needs resvg_py" in capsys.readouterr().err
    assert not (tmp_path / "atlas.npz").exists()
