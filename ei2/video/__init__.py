"""Reads the frames and the sound of a span of a video file. Only the kept frames take memory.

    opening     the file, its tracks, and what is wrong with it
    packets     the times of all packets, read without decoding
    cut_off     whether the file ends too early
    timing      which frame is shown when, at an even rate
    decoding    packets into frames; broken ones are skipped
    interlacing, picture, hdr, sizes    a frame into RGB of the requested size
    span, request    the kept frames; the request and the result
    film, animation  the frames of a film; of an animated WebP, PNG or GIF
    frames, sound    the functions that the rest of the pack calls
    wording     numbers in messages

Pictures are made by FFmpeg's filters (`bwdif`, `premultiply`, `scale`, `crop`, `pad`, `transpose`, `hflip`, `vflip`),
the sound by its `aresample` and `aformat`; animated pictures are read by imageio's `pillow` plugin. Films are read
through PyAV. imageio's `pyav` plugin (2.38.1) was tried on the same files: it stops at the first broken packet (frame
18 of 48); it returns arrays without times, side data (display matrix) and flags (interlaced, transfer function); and it
always uses the first picture track and FFmpeg's own decoder, which drops the alpha of VP8 and VP9.

FFmpeg's `fps` filter is not used: it needs the frame after the last one, and does not know which frames were lost.

Measured on two busy CPU cores, best of several runs, and compared with reading without filters and times
(`VideoFrame.reformat`): 24 frames of 1920 x 1080 at 512 x 512 2.9 s (before: 4.1 s), 12 frames of the quickstart's clip
12 ms (17 ms), 8 frames from the 350th of 400 on 2.8 s (11.2 s). Memory for those 24 frames 123 MB (105 MB).

Every error is a `ValueError` with one sentence: what is wrong, and what to do.
"""

from .frames import read_frames
from .request import VideoClip
from .sizes import FITS, check_fit, check_size
from .sound import read_audio

__all__ = ["FITS", "VideoClip", "check_fit", "check_size", "read_audio", "read_frames"]
