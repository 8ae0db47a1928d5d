# Dense high-resolution baseline on CamVid: network, schedule, batch and crop of the low-resolution
# one, on full-size pictures.
_base_ = [
    '../_base_/models/fcn_hr16s.py', '../_base_/datasets/camvid-720x960.py',
    '../_base_/default_runtime.py', '../_base_/schedules/schedule_400.py',
]
