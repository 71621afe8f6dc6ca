"""How well a checkpoint draws its subjects: the field's protocol on photos, and a procedural world with exact truth."""
