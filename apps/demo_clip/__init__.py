"""How the demo's CLIP was trained."""
