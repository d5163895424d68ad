"""Videos with sound, and what is in them."""

from fractions import Fraction

import av
import numpy as np

from plain_images import scene

RATE = 48_000


def write_talkie(path, *, frames=50, audio="aac", tracks=1, shift=0):
    """25 frames a second with a tone as long as they are; `shift` ticks of 1/25 s later."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"g": "10", "bf": "2"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sounds = [container.add_stream(audio, rate=RATE, layout="mono") for _ in range(tracks)]
        for k in range(frames):
            frame = av.VideoFrame.from_ndarray(scene(shift=k % 40), format="rgb24")
            frame.pts, frame.time_base = k + shift, Fraction(1, 25)
            container.mux(video.encode(frame))
        for number, sound in enumerate(sounds):
            size = sound.codec_context.frame_size or 1024
            for k in range(frames * RATE // 25 // size):
                wave = np.sin((number + 1) * np.arange(k * size, (k + 1) * size) / 20)
                samples = av.AudioFrame.from_ndarray(
                    (20_000 * wave[None]).astype(np.int16), "s16", "mono"
                )
                samples.sample_rate = RATE
                samples.pts, samples.time_base = k * size + shift * RATE // 25, Fraction(1, RATE)
                container.mux(sound.encode(samples))
        for stream in (video, *sounds):
            container.mux(stream.encode(None))


def packets(path, track=0):
    """When each packet of sound begins, in seconds from the first image, and its bytes."""
    with av.open(str(path)) as container:
        stream, video = container.streams.audio[track], container.streams.video[0]
        start = video.start_time * video.time_base
        return [
            (float(packet.pts * packet.time_base - start), bytes(packet))
            for packet in container.demux(stream)
            if packet.pts is not None
        ]
