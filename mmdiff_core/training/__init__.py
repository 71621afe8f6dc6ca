"""Training: heads, refiner and LoRAs around a frozen diffusers model. Wants diffusers, accelerate and PyYAML."""
