"""The panels for stock tools: ``mim test mmsparse CONFIG --checkpoint X --show-dir DIR``."""
from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.dist import master_only
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from mmsparse.registry import VISUALIZERS

from .panels import SCORE, refinement_panels


@VISUALIZERS.register_module()
class RefinementVisualizer(SegLocalVisualizer):
    """Draws :func:`.refinement_panels` for results of a refining model.

    A result with ``selection_score`` (the model's ``test_cfg.keep_score=True``) gets a panel of it.
    Any other result is drawn as mmseg draws it.

    Args:
        name: of this visualizer, as in mmseg.
        score_name: what the selector's score is; the default fits ``EntropySelector``.
        **kwargs: as mmseg's ``SegLocalVisualizer``.
    """

    def __init__(self, name: str = 'visualizer', *, score_name: str = SCORE, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.score_name = score_name

    @master_only
    def add_datasample(self,
                       name: str,
                       image: np.ndarray,
                       data_sample: SegDataSample | None = None,
                       draw_gt: bool = True,
                       draw_pred: bool = True,
                       show: bool = False,
                       wait_time: float = 0,
                       out_file: str | None = None,
                       step: int = 0,
                       **kwargs: Any) -> None:
        """Draw one image; arguments as in mmseg, ``image`` is RGB ``[H, W, 3]``."""
        if data_sample is None or 'selected' not in data_sample or not draw_pred:
            super().add_datasample(
                name, image, data_sample, draw_gt=draw_gt, draw_pred=draw_pred, show=show,
                wait_time=wait_time, out_file=out_file, step=step, **kwargs)
            return
        has_label = draw_gt and 'gt_sem_seg' in data_sample
        has_score = 'selection_score' in data_sample
        panels = refinement_panels(
            np.ascontiguousarray(image[..., ::-1]),
            pixels(data_sample.low_res_sem_seg),
            pixels(data_sample.selected),
            pixels(data_sample.pred_sem_seg),
            pixels(data_sample.gt_sem_seg) if has_label else None,
            score=pixels(data_sample.selection_score) if has_score else None,
            score_name=self.score_name,
            classes=self.dataset_meta['classes'],
            palette=self.dataset_meta['palette'],
            ignore_index=data_sample.get('ignore_index', 255))
        drawn = np.ascontiguousarray(panels[..., ::-1])
        self.set_image(drawn)  # for who asks get_image() afterwards, as MMSegInferencer does
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            from mmcv import imwrite
            imwrite(panels, out_file)
        elif not show:
            self.add_image(name, drawn, step)


def pixels(data: PixelData) -> np.ndarray:
    """A map of a data sample, ``[1, H, W]`` there, as array ``[H, W]``."""
    return data.data[0].cpu().numpy()
