"""Score images and volumes."""
