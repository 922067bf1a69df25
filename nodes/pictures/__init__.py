"""What nodes draw and write: plots, labelled videos, attention maps, tables and reports."""
