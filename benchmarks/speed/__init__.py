"""Speed and memory of tuning, inversion, sampling and the attentions, compared with literal implementations."""
