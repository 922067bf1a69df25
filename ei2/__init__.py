"""The method of EI² in plain torch; knows nothing of the host."""

VERSION = "0.1.0"  # the pack's, as in pyproject.toml; saved tunes name it
PIXELS_PER_LATENT = 8  # along an edge, in all models this pack can inflate
