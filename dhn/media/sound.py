"""The sound of a video, copied into another one as it is: nothing is decoded or encoded."""

import contextlib
import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer

_log = logging.getLogger(__name__)
_TIMEOUT = 30.0  # seconds without an answer from the web


class Sound:
    """Copies all sound tracks of a video from some time on.

    Sound that cannot be read or copied is left out, with a warning.

    Args:
        name: what warnings call the video.
        file: the video, or where it is.
        begin: from where on, in seconds from the first frame.
    """

    def __init__(self, name: str, file: str | BinaryIO, begin: Fraction) -> None:
        self._name = name
        self._tracks: dict[int, AudioStream] = {}
        self._waiting: tuple[Fraction, av.Packet] | None = None
        self._open: InputContainer | None = None
        with contextlib.suppress(av.FFmpegError, OSError):  # who reads the video reports that
            self._open = av.open(file, "r", metadata_errors="replace", timeout=_TIMEOUT)
            video = self._open.streams.video[0]
            start = (video.start_time or 0) * (video.time_base or Fraction(0))
            self._begin = start + begin
            self._packets = self._read()

    def add_to(self, container: OutputContainer) -> None:
        """Gives the output its tracks, before anything is written to it."""
        if self._open is None:
            return
        for track in self._open.streams.audio:
            codec = track.codec_context.name if track.codec_context else "unknown"
            if codec in container.supported_codecs:
                self._tracks[track.index] = container.add_stream_from_template(track)
            else:
                self._warn(f"{codec} does not fit into an .mp4 file")
        if not self._tracks:
            self.close()

    def copy(self, container: OutputContainer, until: Fraction) -> None:
        """Copies what begins less than `until` seconds after the begin, and was not yet copied."""
        while self._open is not None:
            try:
                self._waiting = self._waiting or next(self._packets, None)
                if self._waiting is None:
                    self.close()
                    return
                time, packet = self._waiting
                if time >= until:
                    return
                self._waiting = None
                packet.stream = self._tracks[packet.stream_index]
                container.mux(packet)
            except (av.error.ArgumentError, av.error.InvalidDataError) as error:
                self._warn(error.strerror or "it is damaged")
                self.close()

    def close(self) -> None:
        """Closes the video."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _read(self) -> Iterator[tuple[Fraction, av.Packet]]:
        """The packets from the begin on, and their times, which count from there."""
        assert self._open is not None
        tracks = [self._open.streams[index] for index in self._tracks]
        if self._begin > 0:
            self._open.seek(int(self._begin * av.time_base), backward=True)
        for packet in self._open.demux(tracks):
            if packet.pts is None or packet.dts is None:
                continue
            before = round(self._begin / packet.time_base)
            if packet.pts >= before:
                packet.pts -= before
                packet.dts -= before
                yield packet.pts * packet.time_base, packet

    def _warn(self, reason: str) -> None:
        _log.warning("%s: sound is left out (%s)", self._name, reason)
