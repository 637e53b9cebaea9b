"""OpenCV, set up before its first use: every module takes ``cv2`` from here.

OpenCV reads its environment once, when it or its FFmpeg part is loaded; what the user has set there stays.
"""

from __future__ import annotations

import os

from fer_stream.wire import MAX_PIXELS

for _name, _value in {
    "OPENCV_FFMPEG_LOGLEVEL": "-8",  # FFmpeg's AV_LOG_QUIET: its messages hold addresses, and so passwords
    "OPENCV_FFMPEG_CAPTURE_OPTIONS": "rtsp_transport;tcp",  # over UDP lost packets become grey smears
    "OPENCV_IO_MAX_IMAGE_PIXELS": str(MAX_PIXELS),  # a 5 KB file can claim to be 6 GB
}.items():
    os.environ.setdefault(_name, _value)

import cv2  # noqa: E402

cv2.setNumThreads(1)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

__all__ = ["cv2"]
