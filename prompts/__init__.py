"""The commands of prompt.py: show, check, rank, generate."""
