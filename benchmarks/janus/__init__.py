"""How often objects get a face where the truth has none, under each kind of guidance."""
