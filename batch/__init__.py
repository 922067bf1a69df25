"""The batch run: a table of edits, worked off by real ComfyUI servers that Ray starts on one machine or on many."""
