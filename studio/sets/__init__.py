"""Sets of people: rendering, contact sheets, reviews, diversity, imported meshes."""
