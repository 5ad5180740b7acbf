"""Numbers from tokens: memory bank, patch scores, maps, calibration, metrics, evaluation."""
