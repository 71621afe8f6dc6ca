"""The demo's base: text encoder, UNet and vision tower, trained together from nothing.

    python -m recipes.demo.base WORK --steps 3000

A base that has read the web can draw nearly anything if it is given the right vectors, which is what personalization
builds on. One that knows three hundred names can't. So this one is also taught to listen to vectors: in a part of its
captions a subject comes with *visual words*, made from its reference by a small network on top of the vision tower, and
read by the UNet's cross-attention as words are. Nothing draws with that network: the base takes text alone. It stays
beside the base, for an adapter's heads to imitate first (`imitate`).
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, CLIPVisionConfig, CLIPVisionModelWithProjection

from mmdiff_core.files import read_safetensors, write_safetensors
from mmdiff_core.photo import normalise
from mmdiff_core.training.batches import Batch, Collate, Indexed, Steps
from mmdiff_core.training.config import Config, config_of
from mmdiff_core.training.state import State, load_optimizer, load_weights, optimizer_state, read_state, write_state

from .latents import CHANNELS, PATCH, Components, LatentScenes
from .muon import Muon
from .routing import misled, watch
from .tokens import LENGTH

SIDE, PHOTO = 128, 64
WIDTH, HEADS = 128, 4
WORDS = (PHOTO // PATCH) ** 2
RATE, WARMUP, DECAY = 2e-3, 100, 0.35  # DECAY: the share of steps at the end in which the rate falls to 0
AVERAGE = 0.998
WORDS_FILE = "visual-words.safetensors"
SUBJECT = 4.0  # how much more a subject's pixels weigh than the rest
READ_BACK, ROUTING = 0.5, 0.5  # weights of those losses


class VisualWords(nn.Module):
    """A reference to words of the UNet's own language, and to what is added to its entity word.

    There is a word for each of 8 x 8 patches, so that nothing has to be learned before a word says where it comes from.
    The words have to say what their patch looks like: it is read back from them, which teaches the vision tower long
    before the UNet listens.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.whole = nn.Linear(WIDTH, WIDTH)
        self.queries = nn.Parameter(torch.randn(WORDS, WIDTH) * 0.5)
        self.norm = nn.LayerNorm(WIDTH)
        self.entity = nn.Linear(WIDTH, WIDTH)
        self.read_back = nn.Linear(WIDTH, CHANNELS)

    def forward(self, cls: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 128) and (N, 1 + 64, 128) to (N, 64, 128) words and (N, 128) entities."""
        return self.norm(self.patch(patches[:, 1:]) + self.whole(cls)[:, None] + self.queries), self.entity(cls)


class Making(nn.Module):
    """Everything that trains."""

    def __init__(self, tokens: int, components: Components, whose: bool = True) -> None:
        """tokens: of the vocabulary. components: those of the latents. whose: attention is told which subject a place
        belongs to."""
        super().__init__()
        self.components, self.whose = components, whose
        end = tokens - 1
        self.text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=tokens,
                hidden_size=WIDTH,
                intermediate_size=4 * WIDTH,
                num_hidden_layers=3,
                num_attention_heads=HEADS,
                max_position_embeddings=LENGTH,
                bos_token_id=end - 1,
                eos_token_id=end,
                pad_token_id=end,
                attn_implementation="eager",
            )
        )
        self.vision = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=WIDTH,
                intermediate_size=4 * WIDTH,
                num_hidden_layers=4,
                num_attention_heads=HEADS,
                projection_dim=WIDTH,
                image_size=PHOTO,
                patch_size=8,
                attn_implementation="eager",
            )
        )
        self.unet = UNet2DConditionModel(
            sample_size=SIDE // 8,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            block_out_channels=(64, 128, 96),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",) * 3,
            up_block_types=("CrossAttnUpBlock2D",) * 3,
            cross_attention_dim=WIDTH,
            attention_head_dim=(4, 8, 6),
            norm_num_groups=32,
        )
        self.words = VisualWords()
        self.watchers = watch(self.unet)
        for module in self.text.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.1)

    def take(self, folder: Path) -> None:
        """The parts of a base that was made before; visual words, if it has none, are learned anew within minutes."""
        self.text.load_state_dict(CLIPTextModel.from_pretrained(folder / "text_encoder").state_dict())
        self.vision.load_state_dict(CLIPVisionModelWithProjection.from_pretrained(folder / "vision").state_dict())
        self.unet.load_state_dict(UNet2DConditionModel.from_pretrained(folder / "unet").state_dict())
        if (folder / WORDS_FILE).exists():
            self.words.load_state_dict(read_safetensors(folder / WORDS_FILE)[0])

    def forward(self, batch: Batch, scheduler: DDPMScheduler) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B,) weighted and plain squared errors of the predicted velocity; the mean one of references read back;
        how badly attention is led."""
        noise = batch.randn(batch.latents.shape[1:], "noise")
        time = noisy_times(batch.time, scheduler.config.num_train_timesteps)
        noisy = scheduler.add_noise(batch.latents, noise, time)
        seen = photos(batch)
        words, entities = self.look(seen)
        velocity = scheduler.get_velocity(batch.latents, noise, time)
        error = (self.predict(noisy, time, batch, words, entities) - velocity).square()
        inside = nn.functional.adaptive_avg_pool2d(batch.masks.amax(1, keepdim=True), error.shape[-2:])
        masks = batch.masks * batch.slots.valid[..., None, None]
        astray = misled(self.watchers, masks, WORDS, entity_places(batch), self.whose)
        weight = 1 + SUBJECT * inside
        patches = self.components.encode(seen * 2 - 1).flatten(2).transpose(1, 2)
        read = (self.words.read_back(words) - patches).square().mean()
        return (error * weight).mean((1, 2, 3)) / weight.mean((1, 2, 3)), error.mean((1, 2, 3)), read, astray

    def predict(self, noisy: Tensor, time: Tensor, batch: Batch, words: Tensor, entities: Tensor) -> Tensor:
        """The velocity of (B, 16, h, w) latents under noise, given captions and what `look` made of the references."""
        text, there = self.context(batch, words, entities)
        return self.unet(noisy, time, encoder_hidden_states=text, encoder_attention_mask=there).sample

    def look(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, P, P) photos to (N, 64, 128) visual words and (N, 128) entities."""
        seen = self.vision(normalise(photos), output_hidden_states=True)
        return self.words(seen.image_embeds, seen.hidden_states[-2])

    def context(self, batch: Batch, words: Tensor, entities: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, 128) of text and visual words, and (B, L) bool, which of them are there."""
        size, subjects = batch.slots.valid.shape
        all_words = words.new_zeros(size, subjects, WORDS, WIDTH).masked_scatter(
            batch.slots.valid[..., None, None], words
        )
        all_entities = words.new_zeros(size, subjects, WIDTH).masked_scatter(batch.slots.valid[..., None], entities)
        place = entity_places(batch)

        def fuse(module: nn.Module, arguments: tuple, embedded: Tensor) -> Tensor:
            return embedded + place.transpose(1, 2) @ all_entities

        body = getattr(self.text, "text_model", self.text)
        hook = body.embeddings.token_embedding.register_forward_hook(fuse)
        try:
            text = self.text(batch.slots.ids["l"]).last_hidden_state
        finally:
            hook.remove()
        said = torch.ones_like(batch.slots.ids["l"], dtype=torch.bool)
        there = torch.cat((said, batch.slots.valid.repeat_interleave(WORDS, 1)), 1)
        return torch.cat((text, all_words.flatten(1, 2)), 1), there


def photos(batch: Batch) -> Tensor:
    """(N, 3, P, P) references that are seen; where none is, one all the same, so that every weight has a gradient."""
    slots = batch.slots
    return slots.references[slots.valid] if slots.valid.any() else slots.references[:1, 0]


def entity_places(batch: Batch) -> Tensor:
    """(B, S, L) of 0 and 1: the entity words that are fused."""
    return nn.functional.one_hot(batch.slots.words["l"], LENGTH).float() * batch.slots.fused[..., None]


def noisy_times(even: Tensor, timesteps: int) -> Tensor:
    """Timesteps drawn evenly to others: an eighth in the schedule's last twentieth, where it is decided what goes
    where; three by the square root of their share; and half in the first 55 percent, where detail is decided."""
    share = (even.double() + 0.5) / timesteps
    last, noisy, fine = 0.95 + 0.4 * share, ((8 * share - 1) / 3).clamp(min=0) ** 0.5, 1.1 * share - 0.55
    share = torch.where(share < 0.125, last, torch.where(share < 0.5, noisy, fine))
    return (share * timesteps).long()


def scheduler() -> DDPMScheduler:
    """Noise that ends darker than Stable Diffusion's, since small pictures are known sooner through noise."""
    return DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


def configuration(out: Path, steps: int, batch: int, rate: float = RATE) -> Config:
    """The run as the trainer's own configuration, whose batches and state it shares."""
    return config_of(
        {
            "base": "from nothing",
            "vision": "from nothing",
            "out": str(out),
            "data": {"kind": "recipes.demo.latents:LatentScenes", "resolution": SIDE, "workers": 1},
            "train": {
                "steps": steps,
                "batch": batch,
                "lr": rate,
                "warmup": WARMUP,
                "ema": AVERAGE,
                "precision": "fp32",
            },
            "drop": {"text": 0.0, "image": 0.1, "both": 0.05},
        }
    )


def write_base(making: Making, weights: dict[str, Tensor], folder: Path) -> None:
    """The parts that stay, with these weights, as diffusers and transformers save them."""
    making = copy.deepcopy(making)
    load_weights(making, weights)
    making.text.save_pretrained(folder / "text_encoder")
    making.unet.save_pretrained(folder / "unet")
    making.vision.save_pretrained(folder / "vision")
    scheduler().save_pretrained(folder / "scheduler")
    write_safetensors(folder / WORDS_FILE, making.words.state_dict(), {})


def main(
    work: Path, steps: int, batch: int, every: int, start: Path | None, rate: float = RATE, whose: bool = True
) -> None:
    """Train in `work`, which holds atlas, components and tokenizer; go on where it was last saved, or with the parts of
    an earlier base. Several processes of torchrun share a step, `batch` samples each. whose: attention is told which
    subject a place belongs to; what comes of it without is `work/untold`."""
    out = work / ("base" if whose else "untold")
    accelerator = Accelerator()
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("medium")  # sums stay in full; half as long on CPUs that can
    torch.set_flush_denormal(True)  # attention has many numbers near 0, and the nearest cost a CPU four times as much
    config = configuration(out.with_name(f"{out.name}-run"), steps, batch, rate)
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer", model_max_length=LENGTH)
    scenes = LatentScenes(work / "components.safetensors", work / "atlas.npz", SIDE, PHOTO, config.seed)
    making = Making(len(tokenizer), scenes.components.to(accelerator.device), whose).to(accelerator.device)
    if start:
        making.take(start)
    optimizer = Muon(making.named_parameters(), rate)
    average = {name: value.detach().clone() for name, value in making.named_parameters()}
    done, path = 0, Path(config.out) / "state.safetensors"
    if path.exists():
        state = read_state(path, config)
        done, average = state.step, state.averaged
        load_weights(making, state.weights)
        load_optimizer(making, optimizer, state.optimizer)
    shutil.copytree(work / "tokenizer", out / "tokenizer", dirs_exist_ok=True)
    model = accelerator.prepare(making)
    indices = Steps(range(done, steps), batch, 1, accelerator.process_index, accelerator.num_processes)
    collate = Collate({"l": tokenizer}, config, scheduler().config.num_train_timesteps)
    loader = DataLoader(Indexed(scenes), batch_sampler=indices, collate_fn=collate, num_workers=config.data.workers)
    noise, log = scheduler(), Log(path.parent, done) if accelerator.is_main_process else None
    for step, one in enumerate(loader, done):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / WARMUP) * min(1, (1 - step / steps) / DECAY)
        one = one.to(accelerator.device)
        weighted, plain, read, astray = model(one, noise)
        optimizer.zero_grad()
        accelerator.backward(weighted.mean() + READ_BACK * read + ROUTING * astray)
        torch.nn.utils.clip_grad_norm_(making.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for name, value in making.named_parameters():
                average[name].lerp_(value, 1 - min(AVERAGE, (1 + step) / (10 + step)))
        if not log:
            continue
        log.write(step, plain.detach(), one.slots.valid.any(1), read.item(), astray.item())
        if (step + 1) % every == 0 or step + 1 == steps:
            weights = {name: value.detach() for name, value in making.named_parameters()}
            write_state(path, State(step + 1, weights, average, optimizer_state(making, optimizer)), config)
            write_base(making, average, out)


class Log:
    """Lines of JSON: the mean error of a step's samples, of those with text alone, of those with visual words, and of
    references read back."""

    def __init__(self, folder: Path, done: int) -> None:
        """done: steps that were saved; what was logged of later ones is taken off."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "losses.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        path.write_text("".join(lines[:done]))
        self.file, self.began = path.open("a"), time.time()

    def write(self, step: int, errors: Tensor, worded: Tensor, read: float, astray: float) -> None:
        means = {"loss": errors, "text": errors[~worded], "words": errors[worded]}
        values = {name: one.mean().item() for name, one in means.items() if len(one)}
        values |= {"read back": read, "astray": astray, "seconds": round(time.time() - self.began)}
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m recipes.demo.base", description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path, help="folder with atlas, components and tokenizer")
    parser.add_argument("--steps", type=int, default=3000, help="of the optimizer (default: 3000)")
    parser.add_argument("--batch", type=int, default=16, help="samples of one process in a step (default: 16)")
    parser.add_argument("--every", type=int, default=100, help="steps between saves (default: 100)")
    parser.add_argument("--from-base", type=Path, help="folder of a base to begin with, such as mmdiff_core/demo/model")
    parser.add_argument("--rate", type=float, default=RATE, help=f"the learning rate at its highest (default: {RATE})")
    parser.add_argument("--untold", action="store_true", help="don't tell attention which subject a place belongs to")
    arguments = parser.parse_args()
    main(
        arguments.work,
        arguments.steps,
        arguments.batch,
        arguments.every,
        arguments.from_base,
        arguments.rate,
        not arguments.untold,
    )
