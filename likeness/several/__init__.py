"""Several pictures of one person: their cameras, and planes that show all of them."""
