"""What buckets do to what is drawn, measured in the demo's world: `python -m recipes.buckets.measure`."""
