"""AP and boundary AP on LVIS, and on COCO's classes with the finer masks of LVIS.

LVIS annotates each category in some of the images only. For every image it lists the categories
that were looked for and not found (``neg_category_ids``), and those of which not all objects are
annotated (``not_exhaustive_category_ids``). A category that has no objects in an image and is not
listed as negative is not scored there.

Source: Gupta et al., "LVIS: A Dataset for Large Vocabulary Instance Segmentation", CVPR 2019, sec.
2 and 3.4; PointRend (CVPR 2020) reports AP of COCO models on LVIS as AP*.
"""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCOeval, COCOevalMP
from mmengine.logging import print_log
from pycocotools.cocoeval import COCOeval as PlainCOCOeval

from mmsparse.registry import METRICS

from .boundary_coco import BoundaryCOCOeval, BoundaryCOCOevalMP, BoundaryCocoMetric

UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # ids below 91 that no class of COCO has
COCO_IDS = dict(zip(CocoDataset.METAINFO['classes'],
                    (i for i in range(1, 91) if i not in UNUSED), strict=True))
METRIC_NAMES = ('bbox', 'segm', 'boundary')
FEDERATED = ('neg_category_ids', 'not_exhaustive_category_ids')


def category_ids(categories: Sequence[dict], classes: Sequence[str]) -> list[int]:
    """The category ids that an annotation file uses for a model's classes.

    They are found by name if the file has every class under its name. Otherwise they are COCO's
    ids, if the classes are COCO's and the ids of the file are too. ``lvis_v0.5_val_cocofied.json``
    is such a file: it keeps the names of LVIS (``television_set`` for ``tv``) and leaves out
    classes that have no objects.

    Args:
        categories: categories of the file, each with ``id`` and ``name``.
        classes: names of the model's classes, in the order of its labels.

    Returns:
        One id per class, in the same order.

    Raises:
        ValueError: a class is missing in the file.
    """
    names = {category['name']: category['id'] for category in categories}
    missing = [name for name in classes if name not in names]
    if not missing:
        return [names[name] for name in classes]
    if (COCO_IDS.keys() >= set(classes) and set(COCO_IDS.values()) >= set(names.values())
            and all(COCO_IDS.get(name, i) == i for name, i in names.items())):
        return [COCO_IDS[name] for name in classes]
    raise ValueError(
        f'{len(missing)} of {len(classes)} classes have no category of that name in the annotation '
        f'file, {missing[0]!r} for one, and its ids are not those of COCO. Models of the classes '
        'of COCO are evaluated on lvis_v0.5_val_cocofied.json')


class Federated(PlainCOCOeval):
    """For COCO's evaluators: the rules of LVIS.

    - In each image only the 300 detections with the highest scores count, over all categories.
    - Detections without any area do not count.
    - A detection counts only if its category has objects in the image or is listed in
      ``neg_category_ids``.
    - A detection without a match is ignored, and not an error, if its category is listed in
      ``not_exhaustive_category_ids``.
    - No object is a crowd region.
    """

    max_per_image = 300
    _dts: dict[tuple[int, int], list[dict]]  # by image and category

    def _prepare(self) -> None:
        for annotation in self.cocoGt.anns.values():
            annotation['iscrowd'] = 0
        super()._prepare()
        images: dict[int, list[dict]] = defaultdict(list)
        for (image, _), detections in self._dts.items():
            images[image] += detections
        self._dts = defaultdict(list)
        for image, detections in images.items():
            negative = self.cocoGt.imgs[image]['neg_category_ids']
            detections.sort(key=lambda x: (-x['score'], x['id']))
            for detection in detections[:self.max_per_image]:
                category = detection['category_id']
                if detection['area'] > 0 and (
                        category in negative or (image, category) in self._gts):
                    self._dts[image, category].append(detection)

    def evaluateImg(self, imgId: int, catId: int, *args: Any) -> dict | None:  # noqa: N802, N803
        """Match detections and objects of one image and category; ``None`` if it has neither."""
        matches = super().evaluateImg(imgId, catId, *args)
        if matches and catId in self.cocoGt.imgs[imgId]['not_exhaustive_category_ids']:
            matches['dtIgnore'] = matches['dtIgnore'] | (matches['dtMatches'] == 0)
        return matches

    def summarize(self) -> None:
        """COCO's figures, the first of them of all detections.

        COCO's evaluator takes only 100 detections per image and category for its first figure.
        """
        super().summarize()
        precision = self.eval['precision'][:, :, :, 0, -1]
        self.stats[0] = np.mean(precision[precision > -1]) if (precision > -1).any() else -1


class FederatedCOCOeval(Federated, COCOeval):
    """``pycocotools``' evaluator, with the rules of LVIS."""


class FederatedCOCOevalMP(Federated, COCOevalMP):
    """mmdet's evaluator in several processes, with the rules of LVIS."""


class FederatedBoundaryCOCOeval(Federated, BoundaryCOCOeval):
    """As :class:`FederatedCOCOeval`, with the smaller of mask IoU and boundary IoU."""


class FederatedBoundaryCOCOevalMP(Federated, BoundaryCOCOevalMP):
    """As :class:`FederatedCOCOevalMP`, with the smaller of mask IoU and boundary IoU."""


@METRICS.register_module()
class BoundaryLVISMetric(BoundaryCocoMetric):
    """AP of masks and boundaries by the rules of LVIS; the package ``lvis`` is not needed.

    With ``lvis_v0.5_val_cocofied.json`` and a model of COCO's classes, ``lvis/segm_mAP`` is AP* and
    ``lvis/boundary_mAP`` is AP^B*, as EffSeg (arXiv 2307.01545) and RefineMask (CVPR 2021) report
    them. detectron2's ``datasets/prepare_cocofied_lvis.py`` makes that file; its images are those
    of COCO's val2017. How classes are found in it: :func:`category_ids`.

    Figures have the names of ``CocoMetric``. mmdet's ``LVISMetric`` also splits them into rare,
    common and frequent categories; this metric does not.

    Args:
        ann_file: annotation file of LVIS.
        metric: one or several of ``'bbox'``, ``'segm'``, ``'boundary'``.
        kwargs: arguments of :class:`BoundaryCocoMetric`.

    Raises:
        KeyError: ``metric`` is empty or has an unknown name.
        ValueError: the file lacks LVIS's lists of categories per image, or a class of the model.
    """

    default_prefix = 'lvis'
    evaluators = dict(COCOeval=(FederatedCOCOeval, FederatedBoundaryCOCOeval),
                      COCOevalMP=(FederatedCOCOevalMP, FederatedBoundaryCOCOevalMP))

    def __init__(self, ann_file: str, metric: str | Sequence[str] = ('segm', 'boundary'),
                 **kwargs: Any) -> None:
        if ann_file is None:
            raise ValueError('BoundaryLVISMetric.ann_file must be a file of LVIS: the annotations '
                             'of a dataset do not say where categories were looked for')
        super().__init__(ann_file, metric, **kwargs)
        for name in self.metrics:
            if name not in METRIC_NAMES:
                raise KeyError(f'BoundaryLVISMetric.metric must be of {METRIC_NAMES}, got {name!r}')
        for image in self._coco_api.imgs.values():
            for key in FEDERATED:
                if key not in image:
                    raise ValueError(f'BoundaryLVISMetric.ann_file {ann_file} is no file of LVIS: '
                                     f'image {image["id"]} has no {key}')

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The figures of :class:`BoundaryCocoMetric`."""
        classes, categories = self.dataset_meta['classes'], self._coco_api.cats
        self.cat_ids = category_ids(list(categories.values()), classes)
        absent = {i: dict(id=i, name=name) for i, name in zip(self.cat_ids, classes, strict=True)
                  if i not in categories}
        if absent:
            names = ', '.join(category['name'] for category in absent.values())
            print_log(f'Not scored, because the annotation file has no such category: {names}',
                      'current')
            self._coco_api.cats = categories | absent  # CocoMetric takes the names from here
        return super().compute_metrics(results)
