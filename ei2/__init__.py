"""The method of EI² in plain torch; knows nothing of the host."""
