"""How well embeddings verify who is who, and what simpler methods reach on the same pairs."""
