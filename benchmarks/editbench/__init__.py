"""EditBench: video editing measured on rendered clips, whose correct edit can be rendered too."""
