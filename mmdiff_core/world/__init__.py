"""A procedural world: drawn subjects in drawn scenes, with exact masks and captions."""
