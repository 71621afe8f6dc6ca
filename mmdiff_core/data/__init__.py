"""Training data: annotated pictures, and references varied so that copying them solves nothing."""
