"""What people do with a trained system."""
