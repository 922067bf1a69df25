"""Which words LocalBlend goes by in an edit."""

from __future__ import annotations

from .clips import Clip, Edit

OBJECT = ("color", "shape")  # what a prompt says of the object, in its order


def blend_words(clip: Clip, edit: Edit) -> tuple[list[str], list[str]] | None:
    """The words of the source prompt and of the target prompt in whose regions the edit may change the picture: those
    of the object. None where more than the object changes: LocalBlend keeps a background, so there it stays off."""
    if not edit.changes.keys() <= set(OBJECT):
        return None
    old, new = ([getattr(scene, name) for name in OBJECT] for scene in (clip.scenes[0], edit.target_scenes[0]))
    return old, new
