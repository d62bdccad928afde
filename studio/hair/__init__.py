"""Hair: cards of the assets, procedural shells, crops and curls."""
