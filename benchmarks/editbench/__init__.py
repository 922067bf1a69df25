"""EditBench: video editing measured on rendered clips, whose right edit can be rendered too."""
