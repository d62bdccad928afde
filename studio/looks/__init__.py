"""The looks of a person: light, pose and expression, the cameras round the head."""
