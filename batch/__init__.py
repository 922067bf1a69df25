"""Batch runs: a table of edits, processed by real ComfyUI servers that Ray starts on one machine or several."""
