"""What buckets do to the denoising error, measured in the demo's world: `python -m recipes.buckets.measure`."""
