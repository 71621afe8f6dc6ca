"""Prompts with subjects in them: fused entity tokens, encoded by the host for each stretch of sampling."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import comfy.model_management
import torch
from comfy.sd import CLIP
from torch import Tensor

from ...mmdiff_core import MMDiffError, Subject, bind_prompt
from ...mmdiff_core.prompt import BoundPrompt, TokenPosition, find_markers, locate_words
from .lora import patch_text_encoders
from .model import HostedMMDiff
from .tell import named
from .undrawn import UNDRAWN, Undrawn
from .views import VIEW_KEY, whole_view

CONDITIONING_KEY = "mmdiff_binding"
"""Under this key a conditioning carries the id of the binding whose subjects its rows get."""
WINDOW_KEY = "mmdiff_window"
"""Under this key a conditioning carries the stretch of sampling that its text was fused for, (start, end) of 0 to 1."""

Tokens = dict[str, list[list[tuple[Any, float]]]]
Conditioning = list[list[Any]]


@dataclass(frozen=True)
class Binding:
    """Subjects bound to words of one prompt; what an MMDIFF_BINDING socket carries.

    id: the conditioning made with it carries the same; it comes from what was bound, so that a node which runs again
    makes the same binding. Positions in the UNet's context: words, for each subject those of its entity words; nobody,
    those of words marked so; others, those of all tokens that are part of no such word.
    """

    id: str
    mmdiff: HostedMMDiff
    subjects: tuple[Subject, ...]
    words: tuple[tuple[int, ...], ...]
    nobody: tuple[int, ...] = ()
    others: tuple[int, ...] = ()


@dataclass(frozen=True)
class BoundTokens:
    """Both prompts in the host's tokens, and where the tokens of each entity word stand in them, per encoder."""

    prompt: BoundPrompt
    positive: Tokens
    negative: Tokens
    words: dict[str, list[list[TokenPosition]]]
    others: tuple[int, ...]
    """Where the UNet's context has tokens that are part of no entity word, neither start, end nor padding."""

    @property
    def positions(self) -> dict[str, list[TokenPosition]]:
        """The token of each entity word that stands for all of it: the last one."""
        return {encoder: [word[-1] for word in words] for encoder, words in self.words.items()}

    def in_context(self, subject: int | None) -> tuple[int, ...]:
        """Where the UNet's context has a subject's entity words, or nobody's."""
        first = next(iter(self.words))
        length = len(self.positive[first][0])
        return tuple(
            position.chunk * length + position.index
            for entity, position in zip(self.prompt.entities, self.positions[first], strict=True)
            if entity.subject == subject
        )


def bind(
    mmdiff: HostedMMDiff,
    clip: CLIP,
    prompt: str,
    negative_prompt: str,
    subjects: list[Subject],
    size: dict[str, int],
) -> tuple[Conditioning, Conditioning, Binding, str]:
    """Bind subjects to words and encode both prompts.

    size: the size conditioning to set, or nothing for the latent's. Returns the positive and negative conditioning, the
    binding, and a report. Raises MMDiffError where prompt and subjects do not match or the encoder is wrong.
    """
    _check(mmdiff, clip, subjects)
    refuse_markers(negative_prompt)
    bound = bind_prompt(prompt, [subject.name for subject in subjects])
    clip = patch_text_encoders(clip, mmdiff.core)
    tokens = _tokens(clip, bound, negative_prompt)
    binding = Binding(
        id=_content_id(mmdiff, bound, subjects),
        mmdiff=mmdiff,
        subjects=tuple(subjects),
        words=tuple(tokens.in_context(index) for index in range(len(subjects))),
        nobody=tokens.in_context(None),
        others=tokens.others,
    )
    comfy.model_management.load_models_gpu([mmdiff.patcher, clip.patcher])
    carried = {CONDITIONING_KEY: binding.id, "model_conds": {UNDRAWN: Undrawn(named(subjects), torch.zeros(1, 1))}}
    if any(subject.region is not None for subject in subjects):
        carried[VIEW_KEY] = [whole_view()]
    positive: Conditioning = []
    negative: Conditioning = []
    for start, end, active in _stretches(subjects):
        window = {}
        if (start, end) != (0.0, 1.0):
            window = {"start_percent": start, "end_percent": end, WINDOW_KEY: (start, end)}
        extra = {**size, **window}
        fused = tokens.positive
        if mmdiff.core.spec.fuse_prompt:
            fused = _fused(mmdiff, clip, tokens.positive, tokens, subjects, active)
        positive += _encode(clip, fused, {**extra, **carried})
        if mmdiff.core.spec.fuse_negative:
            fused = _fused(mmdiff, clip, tokens.negative, tokens, subjects, active)
            negative += _encode(clip, fused, {**extra, **_pooled_at_end(clip, tokens.negative, fused)})
    if not negative:
        negative = _encode(clip, tokens.negative, size)
    return positive, negative, binding, _report(tokens, subjects)


def refuse_markers(negative_prompt: str) -> None:
    """Raise MMDiffError where a negative prompt has a marker."""
    if markers := find_markers(negative_prompt):
        raise MMDiffError(
            f"Multi-Subject Binding: the negative prompt has the marker {markers[0].text}; take it out. Markers belong "
            "into the positive prompt alone."
        )


def _content_id(mmdiff: HostedMMDiff, prompt: BoundPrompt, subjects: Sequence[Subject]) -> str:
    """The same for the same checkpoint, prompt and subjects, in any process; the size told to SDXL does not count."""
    digest = hashlib.sha256(repr((mmdiff.core.source, mmdiff.core.spec, prompt)).encode())
    for subject in subjects:
        for value in (*vars(subject).values(), *subject.entity.values()):
            if isinstance(value, Tensor):
                digest.update(repr((value.dtype, value.shape)).encode())
                digest.update(value.cpu().contiguous().view(torch.uint8).numpy())
            elif not isinstance(value, dict):
                digest.update(repr(value).encode())
    return digest.hexdigest()


def _check(mmdiff: HostedMMDiff, clip: CLIP, subjects: list[Subject]) -> None:
    node = "Multi-Subject Binding"
    if not subjects:
        raise MMDiffError(f"{node}: no subject is connected; connect Encode Subject or Load Subject to subject 1.")
    for subject in subjects:
        if subject.source != mmdiff.core.source:
            raise MMDiffError(
                f"{node}: subject '{subject.name}' was encoded with another MM-Diff checkpoint than the one on the "
                "`mmdiff` socket. Encode it again with this checkpoint."
            )
    heads, model = mmdiff.core.heads, clip.cond_stage_model
    wanted = " and ".join(f"CLIP-{encoder.upper()}" for encoder in heads.encoders)
    if set(clip.tokenize("")) != set(heads.encoders):
        raise MMDiffError(
            f"{node}: the `clip` socket holds {type(model).__name__}, the checkpoint was trained with {wanted}. "
            "Connect the CLIP of the base model it belongs to."
        )
    for encoder in heads.fuse:
        width = getattr(model, f"clip_{encoder}").transformer.get_input_embeddings().weight.shape[-1]
        if width != heads.token_width(encoder):
            raise MMDiffError(
                f"{node}: the text encoder CLIP-{encoder.upper()} has tokens {width} wide, the checkpoint wants "
                f"{heads.token_width(encoder)}. Connect the CLIP of the base model it belongs to."
            )


def _tokens(clip: CLIP, bound: BoundPrompt, negative_prompt: str) -> BoundTokens:
    def tokenize(text: str, encoder: str) -> list[list[Any]]:
        chunks = clip.tokenize(text, return_word_ids=True)[encoder]
        return [[token if word else None for token, _, word in chunk] for chunk in chunks]

    positive = clip.tokenize(bound.text)
    words = {encoder: locate_words(bound, partial(tokenize, encoder=encoder)) for encoder in positive}
    first = next(iter(positive))
    entities = {position for word in words[first] for position in word}
    context = [
        (TokenPosition(chunk, index), token)
        for chunk, tokens in enumerate(tokenize(bound.text, first))
        for index, token in enumerate(tokens)
    ]
    others = [place for place, (at, token) in enumerate(context) if token is not None and at not in entities]
    return BoundTokens(bound, positive, clip.tokenize(negative_prompt), words, tuple(others))


def _stretches(subjects: list[Subject]) -> list[tuple[float, float, frozenset[int]]]:
    """Sampling cut where a subject's window begins or ends: (start, end, the subjects active between)."""
    edges = sorted({0.0, 1.0, *(edge for s in subjects for edge in (s.start_percent, s.end_percent))})
    return [
        (
            start,
            end,
            frozenset(i for i, s in enumerate(subjects) if s.start_percent <= start and end <= s.end_percent),
        )
        for start, end in zip(edges, edges[1:], strict=False)
    ]


def _fused(
    mmdiff: HostedMMDiff,
    clip: CLIP,
    tokens: Tokens,
    bound: BoundTokens,
    subjects: list[Subject],
    active: frozenset[int],
) -> Tokens:
    """The tokens with every active entity word's embedding fused with its subject, at the positive prompt's positions.

    A position in a chunk that these tokens do not have (a shorter negative prompt) is left out.
    """
    heads, device = mmdiff.core.heads, mmdiff.patcher.load_device
    fused = {encoder: [list(chunk) for chunk in chunks] for encoder, chunks in tokens.items()}
    for encoder, positions in bound.positions.items():
        for entity, position in zip(bound.prompt.entities, positions, strict=True):
            chunk, index = position.chunk, position.index
            if entity.subject not in active or chunk >= len(fused[encoder]):
                continue
            token, weight = tokens[encoder][chunk][index]
            embedding = _embedding(clip, encoder, token).to(device)
            if embedding.shape[-1] != heads.token_width(encoder):
                raise MMDiffError(
                    f"Multi-Subject Binding: an embedding stands at the place of '{entity.word}' and is "
                    f"{embedding.shape[-1]} wide, the text encoder CLIP-{encoder.upper()} wants "
                    f"{heads.token_width(encoder)}. It was made for another base model; take it out of the prompts."
                )
            person = subjects[entity.subject].entity[encoder].to(device)
            fused[encoder][chunk][index] = (heads.fuse_token(encoder, embedding, person).cpu(), weight)
    return fused


def _embedding(clip: CLIP, encoder: str, token: int | Tensor) -> Tensor:
    """The raw embedding of a token, before positions; a textual inversion is its own."""
    if torch.is_tensor(token):
        return token.float()
    table = getattr(clip.cond_stage_model, f"clip_{encoder}").transformer.get_input_embeddings()
    return table(torch.tensor(token, device=table.weight.device), out_dtype=torch.float32)


def _encode(clip: CLIP, tokens: Tokens, extra: dict[str, Any]) -> Conditioning:
    return clip.encode_from_tokens_scheduled(tokens, add_dict=extra)


def _pooled_at_end(clip: CLIP, plain: Tokens, fused: Tokens) -> dict[str, Tensor]:
    """The pooled vector at the end token, where fusing at or behind it made the host pool elsewhere.

    The host finds the end by counting ids, and a fused token has none. Only SDXL's second encoder is pooled.
    """
    if "g" not in fused:
        return {}
    model = clip.cond_stage_model.clip_g
    chunk = [token for token, _ in fused["g"][0]]
    ids = [token if isinstance(token, int) else None for token, _ in plain["g"][0]]
    end = ids.index(model.special_tokens["end"])
    if not any(torch.is_tensor(token) for token in chunk[end:]):
        return {}
    embeddings = model.process_tokens([chunk], clip.patcher.load_device)[0]
    pooled = model.transformer(None, None, embeds=embeddings, num_tokens=[end + 1], dtype=torch.float32)[2]
    return {"pooled_output": pooled.float().to(comfy.model_management.intermediate_device())}


def _report(tokens: BoundTokens, subjects: list[Subject]) -> str:
    """One line per entity word: which tokens of which encoder, which subject or nobody."""
    lines = []
    for number, entity in enumerate(tokens.prompt.entities):
        places = {encoder: positions[number] for encoder, positions in tokens.positions.items()}
        described = {
            encoder: f"token {place.index}" + (f" of chunk {place.chunk + 1}" if place.chunk else "")
            for encoder, place in places.items()
        }
        if len(set(described.values())) == 1:
            where = next(iter(described.values())) + (" of both encoders" if len(described) > 1 else "")
        else:
            where = ", ".join(f"{text} of CLIP-{encoder.upper()}" for encoder, text in described.items())
        if entity.subject is None:
            lines.append(f"{entity.word} -> {where}, nobody")
            continue
        subject = subjects[entity.subject]
        window = ""
        if (subject.start_percent, subject.end_percent) != (0.0, 1.0):
            window = f", from {subject.start_percent:.0%} to {subject.end_percent:.0%}"
        lines.append(f"{entity.word} -> {where}, subject {entity.subject + 1} '{subject.name}'{window}")
    return "\n".join(lines)
