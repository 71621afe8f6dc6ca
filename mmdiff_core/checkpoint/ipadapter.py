"""The IP-Adapter family as checkpoints of ours (reference: tencent-ailab/IP-Adapter at 62e4af9).

A file holds `image_proj`, the network that makes tokens of a photo, and `ip_adapter`, under the number of each
attention layer whole matrices for the tokens' keys and values, in FaceID files also a LoRA. Its kind is told by its
tensors, not by its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..errors import MMDiffError
from ..model.heads import SDXL_CONTEXT
from ..model.mmdiff import MMDiff
from ..model.tensors import Tensors, under
from ..spec import IP_ADAPTER, Spec

VERSIONS = ("v1", "v2")
BASES = {768: "SD1.5", SDXL_CONTEXT: "SDXL"}
"""The bases that are read, by the width of their cross-attention context."""

_OTHER_BASES = {1024: "Stable Diffusion 2", 1536: "Stable Diffusion 3", 2432: "Stable Diffusion 3.5", 4096: "Flux"}
_FACE_VECTOR = 512
_PARTS = ("image_proj", "ip_adapter")
_SAVED_AS = {"adapter_modules": "ip_adapter"}
_V2_ENTRY = "faceidplusv2"
_LAYER_KEY = re.compile(r"(\d+)\.(to_[kv])_ip\.weight")
_LORA_KEY = re.compile(r"\d+\.to_(q|k|v|out)_lora\.(down|up)\.weight")
_REFINER = ("proj_in.", "proj_out.", "norm_out.", "layers.")


def flattened(content: Mapping[str, object]) -> dict[str, object]:
    """A `.bin` of parts by the keys of a `.safetensors`, joined by dots."""
    flat: dict[str, object] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{key}": inner for key, inner in value.items()})
        else:
            flat[name] = value
    return flat


def is_ipadapter(content: Mapping[str, object]) -> bool:
    """Whether the flat keys of a file are of the family, for any base."""
    parts = {key.split(".", 1)[0] for key in content}
    return "image_proj" in parts and bool(parts & {"ip_adapter", *_SAVED_AS})


def read_ipadapter(content: Mapping[str, object], path: Path, version: str | None) -> tuple[dict[str, Tensor], Spec]:
    """The tensors of a file by the keys of our own format, and its habits.

    content: the file's flat keys. version: which FaceID Plus it is, "v1" or "v2", where neither an entry of the file
    nor its name says so; their tensors are alike. Raises MMDiffError for a base that is not read, or a part that never
    was in such a file.
    """
    tensors = {}
    for key, value in content.items():
        part, _, rest = key.partition(".")
        part = _SAVED_AS.get(part, part)
        if part in _PARTS:
            if not isinstance(value, Tensor):
                raise MMDiffError(
                    f"{path} holds a {type(value).__name__} under '{key}'; wanted are tensors. Download it again."
                )
            tensors[f"{part}.{rest}"] = value
    projection, layers = under(tensors, "image_proj"), under(tensors, "ip_adapter")
    _check_base(projection, layers, path)
    spec = _spec(projection, layers, path)
    if spec.identity == "face" and "perceiver_resampler.proj_in.weight" in projection:
        spec = spec.replace(shortcut=_version(content, path, version) == "v2")
    heads = {f"heads.subject.{_head_key(key)}": value for key, value in projection.items()}
    return {**heads, **{f"unet.{_layer_key(key, path)}": value for key, value in layers.items()}}, spec


def kind(mmdiff: MMDiff) -> str:
    """What a checkpoint is, as its users call it."""
    head, spec = mmdiff.heads.subject, mmdiff.spec
    if spec.negative == "nothing":
        return "MM-Diff"
    if head.latents is not None:
        return "IP-Adapter FaceID Portrait Unnorm" if spec.identity == "face" else "IP-Adapter Plus"
    if spec.identity == "face":
        if head.refiner is not None:
            return f"IP-Adapter FaceID Plus {'v2' if spec.shortcut else 'v1'}"
        return (
            "IP-Adapter FaceID"
            if any("to_q_lora" in layer for layer in mmdiff.unet.values())
            else ("IP-Adapter FaceID Portrait")
        )
    return "IP-Adapter Full Face" if spec.identity == "patches" else "IP-Adapter"


def _spec(projection: Tensors, layers: Tensors, path: Path) -> Spec:
    """Where tokens start from, told by the names of the projection's tensors."""
    face = IP_ADAPTER.replace(identity="face", face_crop=256 if _context(layers) == SDXL_CONTEXT else 224)
    if "latents" in projection:
        of_face = projection["proj_in.weight"].shape[1] == _FACE_VECTOR
        return face.replace(unit_face=False) if of_face else IP_ADAPTER
    if "proj.3.weight" in projection:
        return IP_ADAPTER.replace(identity="patches")
    if "proj.2.weight" in projection:
        return face
    if "proj.weight" in projection:
        return IP_ADAPTER.replace(identity="cls")
    raise MMDiffError(
        f"{path} has the parts of an IP-Adapter, but its image_proj is of no kind that is known "
        f"({', '.join(sorted(projection)[:3])} ...). It is for another program, or newer than this version."
    )


def _check_base(projection: Tensors, layers: Tensors, path: Path) -> None:
    """Refuse, by name, what was made for another base, and a file that lacks layers."""
    context = _context(layers)
    wide = {
        key.removesuffix("layers.0.0.to_out.weight"): value.shape[0]
        for key, value in projection.items()
        if key.endswith("layers.0.0.to_out.weight")
    }
    kolors = wide.get("") == 2048 or wide.get("perceiver_resampler.") == 4096
    if kolors or context not in BASES:
        base = "Kolors" if kolors else _OTHER_BASES.get(context, "a base that is not known")
        raise MMDiffError(
            f"{path} is an IP-Adapter for {base} (its context is {context} wide); read are those for "
            f"{' and '.join(BASES.values())}. Choose one of these."
        )
    matches = [match for key in layers if (match := _LAYER_KEY.fullmatch(key))]
    keyed, valued = ({int(match[1]) for match in matches if match[2] == name} for name in ("to_k", "to_v"))
    if keyed != valued or keyed != set(range(1, 2 * len(keyed), 2)):
        raise MMDiffError(f"{path} lacks the keys or values of some attention layers; download it again.")


def _context(layers: Tensors) -> int:
    """Width of the tokens that the matrices take, 0 where there are none."""
    return next((value.shape[-1] for key, value in layers.items() if key.endswith(".to_k_ip.weight")), 0)


def _version(content: Mapping[str, object], path: Path, version: str | None) -> str:
    if _V2_ENTRY in content:
        return "v2"
    name = re.sub(r"[^a-z0-9]", "", path.stem.lower())
    if "plusv2" in name:
        return "v2"
    if "plus" in name:
        return "v1"
    if version is None:
        raise MMDiffError(
            f"{path} is an IP-Adapter FaceID Plus, and neither an entry nor its name says whether of version 1 or 2; "
            "their tensors are alike. Give it back its name (ip-adapter-faceid-plus_... or -plusv2_...), or choose "
            "the version when you load it."
        )
    return version


def _head_key(key: str) -> str:
    """A key below `image_proj` as one below `heads.subject`."""
    if key.startswith("perceiver_resampler."):
        return f"refiner.{key.partition('.')[2]}"
    if key.startswith(_REFINER):
        return f"refiner.{key}"
    return re.sub(r"^(norm|proj\.3)\.", "layer_norm.", key)


def _layer_key(key: str, path: Path) -> str:
    """A key below `ip_adapter` as one below `unet`."""
    if match := _LAYER_KEY.fullmatch(key):
        return f"{match[1]}.{match[2]}_image.weight"
    if _LORA_KEY.fullmatch(key):
        return key
    raise MMDiffError(f"{path} has the key 'ip_adapter.{key}', which no IP-Adapter for SD1.5 or SDXL has.")
