"""MM-Diff on a diffusers model: prompts and photos in, pictures out. Wants diffusers and transformers."""

PACKAGES = {
    "accelerate": "accelerate",
    "diffusers": "diffusers",
    "filelock": "filelock",
    "tensorboard": "tensorboard",
    "tqdm": "tqdm",
    "transformers": "transformers",
    "yaml": "pyyaml",
}
"""What drawing, training and evaluation need beside the core, by the name they import: the extra `draw`."""
INSTALL = f"pip install {' '.join(PACKAGES.values())}"
"""What to run where one of them is missing."""
