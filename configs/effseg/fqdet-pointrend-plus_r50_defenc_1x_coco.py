_base_ = './fqdet-pointrend-plus_r50_fpn_1x_coco.py'
model = dict(neck=dict(_delete_=True, type='mmsparse.DeformableEncoder'))
