# For weights that the paper's released code has trained (tools/model_converters/sparserefine.py):
# as stored-lr, and the refiner sees BGR, normalized by the means of RGB, as a slip has it there. So
# the segmentor cannot run on these images; its logits come from files.
_base_ = './sparserefine_fcn-hr48_stored-lr_8xb4-46k_cityscapes-1024x2048.py'
model = dict(data_preprocessor=dict(bgr_to_rgb=False), segmentor=dict(data_preprocessor=None))
