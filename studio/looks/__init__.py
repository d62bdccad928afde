"""How a person is seen: light, pose and expression, the cameras round the head."""
