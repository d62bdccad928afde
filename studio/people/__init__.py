"""Random people: who they are, their bodies, faces and skin."""
