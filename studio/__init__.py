"""Multi-view training data: synthetic subjects, camera rigs, rasteriser."""
