"""Speed and memory of tuning, inversion, sampling and the attentions, beside literal implementations."""
