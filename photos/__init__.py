"""A photograph becomes a portrait: face, turn, framing, matte."""
