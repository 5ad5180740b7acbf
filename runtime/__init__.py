"""The machine: errors, files, cache, processes, matrix products, memory, environment."""
