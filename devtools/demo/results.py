"""The demo's measurements, computed from the server's PNG frames, and their report."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ei2.measures import psnr
from miniature.judge import CLASSES, Judge
from miniature.world import Scene, prompt

from ..environment import say


def decode(pictures: list[bytes]) -> torch.Tensor:
    """Encoded pictures of one size -> `f 3 h w`, 0..1."""
    arrays = [np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")) for picture in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


def measure(clips: dict[str, torch.Tensor], scenes: list[Scene]) -> dict:
    """The report on the pictures. `clips`: source, reconstruction, edit, truth, each `f 3 h w` in 0..1; `scenes`: what
    the correct edit shows, one per frame."""
    judge = Judge.load()
    answers = {name: judge.see(clips[name]) for name in ("source", "edit")}
    goals = [{key: getattr(scene, key) for key in CLASSES} for scene in scenes]
    pairs = list(zip(answers["edit"], goals))
    return {
        "frames": len(scenes),
        "reconstruction_psnr_db": psnr(clips["reconstruction"], clips["source"]),
        "edit_psnr_against_truth_db": psnr(clips["edit"], clips["truth"]),
        "unedited_source_psnr_against_truth_db": psnr(clips["source"], clips["truth"]),
        "frames_with_everything_right": sum(answer == goal for answer, goal in pairs),
        "frames_right_by_attribute": {key: sum(answer[key] == goal[key] for answer, goal in pairs) for key in CLASSES},
        "wanted": sentence(goals[0]),
        "judge_sees": {name: [sentence(answer) for answer in clip] for name, clip in answers.items()},
    }


def sentence(answer: dict[str, str]) -> str:
    """What the judge saw, in words."""
    return prompt(Scene(**{key: answer[key] for key in CLASSES}))


def summarize(report: dict, output: Path) -> None:
    """Prints the report in readable form."""
    frames = report["frames"]
    say(f"\nReconstruction: {report['reconstruction_psnr_db']:.1f} dB PSNR against the source")
    say(
        f"Edit: {report['edit_psnr_against_truth_db']:.1f} dB PSNR against the right result "
        f"(the unedited clip has {report['unedited_source_psnr_against_truth_db']:.1f} dB)"
    )
    say(f"Wanted: {report['wanted']}. The judge sees:")
    for first, last, words in spans(report["judge_sees"]["edit"]):
        where = f"frame {first}" if first == last else f"frames {first} to {last}"
        say(f"  {where}: {words}")
    right = ", ".join(f"{name} {count}" for name, count in report["frames_right_by_attribute"].items())
    say(f"Frames with everything right: {report['frames_with_everything_right']} of {frames} ({right})")
    say("Seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in report["seconds"].items()))
    say(f"Results, beginning with contact_sheet.png, are in {output}")


def spans(words: list[str]) -> list[tuple[int, int, str]]:
    """Equal neighbours joined: first frame, last frame (from 1), text."""
    joined: list[tuple[int, int, str]] = []
    for number, text in enumerate(words, start=1):
        if joined and joined[-1][2] == text:
            joined[-1] = (joined[-1][0], number, text)
        else:
            joined.append((number, number, text))
    return joined
