"""A head that moves: its model, its registration to an avatar, expressions, bent rays."""
