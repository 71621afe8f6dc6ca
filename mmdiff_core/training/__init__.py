"""Training: heads, refiner and LoRAs around a frozen diffusers model. Wants diffusers, accelerate and PyYAML."""

INSTALL = "pip install diffusers accelerate transformers pyyaml tensorboard tqdm"
"""What to run where a package of training is missing."""
