# The classes of ADE20K that are stuff and not things, counted from 0: those that CascadePSP (CVPR
# 2020) lets count less where refined objects meet.
stuff_classes = (
    0, 1, 2, 3, 5, 6, 9, 11, 13, 16, 21, 25, 26, 28, 29, 46, 48, 51, 52, 54, 59, 60, 61, 68, 79, 84,
    91, 94, 96, 101, 105, 109, 113, 128, 140)
