"""Videos made for tests."""
import cv2
import numpy as np


def video(path, count=7, size=(48, 64)):
    """A video of noise in blocks, which survives the coding."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 5, size[::-1])
    frames = [np.kron(np.random.default_rng(k).integers(0, 256, (3, 4, 3)), np.ones((16, 16, 1)))
              for k in range(count)]
    for frame in frames:
        writer.write(frame.astype(np.uint8))
    writer.release()
    return frames
