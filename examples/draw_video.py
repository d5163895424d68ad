"""Draws skeletons into a video, several frames at a time.

    python examples/draw_video.py dance.mp4 --checkpoint best.pt --output drawn.mp4

A person keeps a colour from frame to frame. For a camera, take frames from cv2.VideoCapture in
place of VideoReader: they are BGR, so give the predictor `frame[..., ::-1]`.
"""

import argparse
import contextlib
import itertools
from pathlib import Path

import dhn
from dhn.media.draw import SteadyColours
from dhn.media.video import VideoReader, VideoWriter

parser = argparse.ArgumentParser(description="Draw skeletons into a video.")
parser.add_argument("video", type=Path)
parser.add_argument("--checkpoint", help="file, name or address; by default dhn's own")
parser.add_argument("--device", default="auto")
parser.add_argument("--output", type=Path, default=Path("drawn.mp4"))
parser.add_argument("--batch-size", type=int, default=4)
arguments = parser.parse_args()

predictor = dhn.load(arguments.checkpoint, device=arguments.device)
colours = SteadyColours()
with VideoReader(arguments.video) as video, contextlib.ExitStack() as stack:
    frames = iter(video)
    writer = None
    while batch := list(itertools.islice(frames, arguments.batch_size)):
        for frame, people in zip(batch, predictor([f.image for f in batch]), strict=True):
            if writer is None:
                height, width = frame.image.shape[:2]
                writer = VideoWriter(arguments.output, video.fps, (width, height))
                stack.callback(writer.close)  # the file appears, whatever happens later
            drawn = people.plot(colours=colours(people.keypoints))
            writer.write(drawn, frame.time)

timing = predictor.timing
seconds = timing.network_seconds + timing.decode_seconds
print(f"{arguments.output}: {timing.images} frames, {1000 * seconds / timing.images:.0f} ms each")
