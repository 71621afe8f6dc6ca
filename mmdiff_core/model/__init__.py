"""The network: heads, refiner, LoRA and multi-modal cross-attention."""
