"""LoRA as a tree of down/up pairs that mirrors the key paths of its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn


class LoRAPair(nn.Module):
    """x -> up(down(x)), the low-rank update of one linear layer; alpha equals the rank, so its scale is 1."""

    def __init__(self, in_features: int, rank: int, out_features: int) -> None:
        super().__init__()
        self.down = nn.Linear(in_features, rank, bias=False)
        self.up = nn.Linear(rank, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return self.up(self.down(x))


def lora_tree(tensors: Mapping[str, Tensor]) -> nn.ModuleDict:
    """Nested ModuleDicts with a LoRAPair wherever the tensors have `PATH.down.weight` and `PATH.up.weight`.

    An image branch may have whole matrices in place of pairs: `PATH_image.weight` is a linear layer. Ranks and widths
    are the tensors' own; a layer without tensors simply is not in the tree.
    """
    tree = nn.ModuleDict()
    for key, weight in tensors.items():
        pair, whole = key.removesuffix(".down.weight"), key.removesuffix(".weight")
        if pair != key:
            path, module = pair, LoRAPair(weight.shape[1], weight.shape[0], tensors[f"{pair}.up.weight"].shape[0])
        elif whole.endswith("_image"):
            out_features, in_features = weight.shape
            path, module = whole, nn.Linear(in_features, out_features, bias=False)
        else:
            continue
        *parents, name = path.split(".")
        node = tree
        for parent in parents:
            if parent not in node:
                node[parent] = nn.ModuleDict()
            node = node[parent]
        node[name] = module
    return tree


def lora_pairs(tree: nn.Module) -> Iterator[tuple[str, LoRAPair]]:
    """Every pair of the tree with its dotted path."""
    return ((path, module) for path, module in tree.named_modules() if isinstance(module, LoRAPair))
