"""predict.py's parts: files to pictures, pictures to verdicts, verdicts to files."""
