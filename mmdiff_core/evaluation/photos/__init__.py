"""`evaluate dreambench`: the field's protocol, on photos of real things and people."""
