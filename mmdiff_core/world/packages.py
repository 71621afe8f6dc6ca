"""The artwork's packages: pinned, fetched by npm, and read from their archives without unpacking them to disk."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tarfile
from pathlib import Path
from typing import NamedTuple

from ..errors import MMDiffError


class Package(NamedTuple):
    """One npm package with one style of drawings. `family`: styles that draw the same individuals share it."""

    name: str
    version: str
    integrity: str  # SHA-512, base64, as the registry states it
    style: str
    family: str
    licence: str
    credit: str

    @property
    def file_name(self) -> str:
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def share_alike(self) -> bool:
        return "-SA-" in self.licence


# In order of preference: of two drawings that are nearly the same, the one further up stays.
PACKAGES = (
    Package(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
        "fluent-3d",
        "fluent",
        "MIT",
        "Fluent Emoji, Microsoft Corporation, packaged by LobeHub",
    ),
    Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        "fluent-flat",
        "fluent",
        "MIT",
        "Fluent Emoji, Microsoft Corporation",
    ),
    Package(
        "@iconify-json/noto",
        "1.2.9",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        "noto",
        "noto",
        "Apache-2.0",
        "Noto Emoji, Google Inc",
    ),
    Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        "twemoji",
        "twemoji",
        "CC-BY-4.0",
        "Twemoji, Twitter and other contributors",
    ),
    Package(
        "@iconify-json/emojione",
        "1.2.3",
        "T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
        "emojitwo",
        "emojitwo",
        "CC-BY-4.0",
        "EmojiTwo, the EmojiTwo community and EmojiOne",
    ),
    Package(
        "@iconify-json/noto-v1",
        "1.2.5",
        "/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
        "blob",
        "blob",
        "Apache-2.0",
        "Noto Emoji (blob emoji), Google Inc",
    ),
    Package(
        "@iconify-json/fxemoji",
        "1.2.2",
        "UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
        "fxemoji",
        "fxemoji",
        "Apache-2.0",
        "FxEmojis, Mozilla",
    ),
    Package(
        "@iconify-json/openmoji",
        "1.2.29",
        "vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5Geb/g+6GH/Qwnq1OqksEmaDGTCmZ5nFKJQ==",
        "openmoji",
        "openmoji",
        "CC-BY-SA-4.0",
        "OpenMoji, HfG Schwäbisch Gmünd and contributors",
    ),
    Package(
        "@iconify-json/emojione-v1",
        "1.2.3",
        "UjI2VQEXVtGlPBvQuxEizro7QCgBcJDOYwKUupquvvZ8UV4xOlvm45IU82JYWegiAWLerY79gFLMZ26U6Ms+ww==",
        "emojione",
        "emojione",
        "CC-BY-SA-4.0",
        "EmojiOne 1, the EmojiOne contributors",
    ),
)


def fetch(package: Package, folder: Path) -> Path:
    """The package's archive in `folder`, brought by npm if it is not there, and checked against its pinned hash.

    Raises MMDiffError where npm is missing or fails, and where the archive is not the pinned one.
    """
    archive = folder / package.file_name
    if not archive.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        wanted = f"{package.name}@{package.version}"
        command = ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder), wanted]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise MMDiffError(
                f"{archive} is not there, and npm, which would fetch it, is not installed. Install Node.js, or put the "
                f"archives of the packages into {folder} yourself."
            ) from error
        if done.returncode or not archive.is_file():
            raise MMDiffError(f"npm could not fetch {wanted}: {done.stderr.strip() or done.stdout.strip()}")
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != package.integrity:
        raise MMDiffError(
            f"{archive} is not the pinned archive: its SHA-512 is {found}, wanted is {package.integrity}. "
            "Delete it and build again."
        )
    return archive


def members(archive: Path, suffix: str) -> dict[str, bytes]:
    """Path inside the archive -> content, of every plain file whose path ends with `suffix`."""
    with tarfile.open(archive) as tar:
        return {
            entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile() and entry.name.endswith(suffix)
        }
