"""Show, check, rank and generate prompts."""
