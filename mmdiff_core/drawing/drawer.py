"""A folder that draws: prompts with markers, references and seeds to pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..chance import stream
from ..checkpoint import load_checkpoint
from ..cutout import references as made_ready
from ..errors import MMDiffError
from ..files import digest
from .adapter import Adapter
from .base import Base
from .processors import Maps, mean_map
from .sample import sample
from .slots import Reader, Slots

SETTINGS, CHECKPOINT, SAVED = "drawing.json", "mmdiff.safetensors", "step-*.safetensors"
WEIGHTS = (".safetensors", ".bin", ".json")  # files of a base that decide what it computes


@dataclass(frozen=True)
class Settings:
    """How a folder draws; `drawing.json` in it.

    base, vision: folders, relative to it, of a diffusers model and of a transformers CLIP vision model. resolution:
    side of the picture, pixels. steps, guidance: of sampling. subjects: whether references are looked at; an arm that
    was trained on words alone is drawn by words alone. half: in bfloat16 where there is a GPU. by_word: whether each
    subject is kept out of where the prompt looks for another word. cut_out: whether a subject is cut out of the plain
    ground of its reference first, as Encode Subject does. end_in_noise: of the base's noise schedule. config: where the
    base is a single file, the folder of its family's configurations.
    """

    base: str
    vision: str
    resolution: int
    steps: int
    guidance: float
    subjects: bool = True
    half: bool = False
    by_word: bool = False
    cut_out: bool = False
    end_in_noise: bool = False
    config: str = ""

    def write(self, folder: Path) -> None:
        """As `drawing.json` in a folder, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SETTINGS).write_text(json.dumps(asdict(self), indent=1) + "\n")


class Drawer:
    """An adapter that draws by some settings. All drawers start a seed's picture from the same noise.

    source: a hash of everything but prompts, references and seeds that decides what is drawn. about: the same in words.
    """

    def __init__(self, adapter: Adapter, settings: Settings, source: str, about: str) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.adapter = adapter.eval().to(self.device)
        self.settings = settings
        self.source = source
        self.about = about
        self.reader = Reader(adapter.base.tokenizers)

    def __call__(self, prompts: Sequence[str], references: Sequence[Tensor], seeds: Sequence[int]) -> Tensor:
        """Prompts with markers, (S, 3, P, P) references in [0, 1] and a seed each, to (B, 3, H, W) in [0, 1].

        The references of a prompt are its subjects `picture 1`, `picture 2` and so on. Raises MMDiffError where a
        prompt does not fit them.
        """
        with self._autocast():
            drawn = self.adapter.base.decode(self.latents(prompts, references, seeds).to(self.device))
        return (drawn.float() / 2 + 0.5).clamp(0, 1).cpu()

    def latents(self, prompts: Sequence[str], references: Sequence[Tensor], seeds: Sequence[int]) -> Tensor:
        """The same as latents, (B, C, h, w)."""
        slots = self._slots(prompts, references)
        without = self.reader.without_subjects(slots, self.adapter.mmdiff.spec.fuse_negative)
        noise, settings = self.noise(seeds).to(self.device), self.settings
        with self._autocast():
            return sample(self.adapter, slots, without, noise, settings.steps, settings.guidance).cpu()

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """The (B, C, h, w) noise that pictures of these seeds begin with."""
        return torch.stack([self._drawn("noise", seed) for seed in seeds])

    @torch.no_grad()
    def maps(self, image: Tensor, prompt: str, references: Tensor, seed: int) -> dict[str, Tensor]:
        """Where a real scene, half covered in noise, looks for each subject: branch -> (S, 16, 16), the mean of all
        cross-attention layers. image: (3, H, W) in [0, 1]. The prompt names each subject once, in order."""
        slots, base = self._slots([prompt], [references]), self.adapter.base
        scene = image[None].to(self.device) * 2 - 1
        latents_noise, noise = (self._drawn(purpose, seed)[None].to(self.device) for purpose in ("latents", "noise"))
        time = torch.full((1,), base.scheduler.config.num_train_timesteps // 2, device=self.device)
        maps = Maps(base.cross_layers, base.cross_layers if self.settings.subjects else ())
        with self._autocast():
            noisy = base.scheduler.add_noise(base.encode(scene, latents_noise), noise, time)
            self.adapter.predict(noisy, time, self.adapter.conditions(slots, image.shape[-1]), maps)
        found = {"text": maps.text, "image": maps.image}
        return {branch: mean_map(layers, *image.shape[-2:])[0] for branch, layers in found.items() if layers}

    def _slots(self, prompts: Sequence[str], references: Sequence[Tensor]) -> Slots:
        size = self.adapter.base.photo_size
        if self.settings.cut_out:
            references = [made_ready([photos.movedim(1, -1)], None, size, crop=True).photos for photos in references]
        slots = self.reader.slots(prompts, references, size, self.settings.by_word)
        if not self.settings.subjects:
            slots = replace(slots, valid=torch.zeros_like(slots.valid), fused=torch.zeros_like(slots.fused))
        return slots.to(self.device)

    def _drawn(self, purpose: str, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(int(stream(purpose, seed).integers(2**62)))
        return torch.randn(self.adapter.base.latent_shape(self.settings.resolution), generator=generator)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.adapter.base.unet.dtype == torch.bfloat16)


def load(folder: Path, by_word: bool = False, cut_out: bool = False) -> Drawer:
    """A folder with `drawing.json`: a training run, which draws with what it saved last, or a model with its
    `mmdiff.safetensors`. by_word, cut_out: as in the settings.

    Raises MMDiffError where there is none, or a part is missing, not whole or does not fit the others.
    """
    path = folder / SETTINGS
    try:
        settings = Settings(**json.loads(path.read_text()))
        settings = replace(settings, by_word=by_word or settings.by_word, cut_out=cut_out or settings.cut_out)
    except FileNotFoundError as error:
        raise MMDiffError(
            f"{folder} has no {SETTINGS}, so it can't draw. Name the folder that a training run writes as its `out`, "
            "or one of a diffusers model with a checkpoint and that file."
        ) from error
    except (TypeError, ValueError) as error:
        raise MMDiffError(f"{path} does not say how to draw ({error}).") from error
    checkpoint = max(folder.glob(SAVED), default=folder / CHECKPOINT)
    mmdiff = load_checkpoint(checkpoint).float()
    if mmdiff.spec.identity == "face":
        raise MMDiffError(
            f"{checkpoint} draws people from face vectors, and here there are photos only. Draw with it in the nodes, "
            "or look at the sample sheets of its run."
        )
    dtype = torch.bfloat16 if settings.half and torch.cuda.is_available() else torch.float32
    parts = [(folder / part).resolve() for part in (settings.base, settings.vision)]
    config = str((folder / settings.config).resolve()) if settings.config else ""
    base = Base(*map(str, parts), weights=True, dtype=dtype, config=config)
    if settings.end_in_noise:
        base.end_in_noise()
    adapter = Adapter(base, mmdiff)
    folders = [*parts, Path(config)] if config else parts
    files = {file for part in folders for file in (part, *part.rglob("*")) if file.suffix in WEIGHTS}
    paths = {"base": "", "vision": "", "config": ""}
    source = digest(sorted(files), json.dumps({**asdict(settings), **paths, "": mmdiff.source}))
    size = sum(value.numel() for value in mmdiff.tensors().values())
    about = f"{checkpoint} ({size} numbers), {settings.steps} steps of sampling, guidance {settings.guidance:g}"
    about += ", by word" * settings.by_word + ", cut out" * settings.cut_out
    return Drawer(adapter, settings, source, about)
