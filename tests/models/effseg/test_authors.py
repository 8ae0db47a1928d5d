"""EffSeg's mask head against what the authors' own head returned, in float64."""

import numpy as np
import pytest
import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor

from mmsparse.models.effseg import EffSegMaskHead, mask_head
from mmsparse.models.effseg.mask_head import compose, partly_covered, sine_code
from mmsparse.models.effseg.paste import sample_strips
from mmsparse.models.effseg.rois import RoIMasks, roi_levels
from tests import authors
from tests.models.effseg.renamed import renamed

HEIGHT, WIDTH = 192, 256
STRIDES = (4, 8, 16, 32)
CLOSE = dict(rtol=0, atol=1e-6)


@pytest.fixture(scope='module')
def head() -> EffSegMaskHead:
    """Ours, with the authors' weights."""
    model = EffSegMaskHead(budget=None)
    own = model.state_dict()
    state = {renamed(k): v for k, v in authors.state('effseg_head', 'effseg.').items()}
    # their kernels lie flat, tap after tap
    model.load_state_dict({k: v.view(own[k].shape) for k, v in state.items()})
    return authors.widened(model)


def noise(name: str, *shape: int) -> Tensor:
    return torch.from_numpy(authors.noise(name, shape))


@pytest.fixture(scope='module')
def feats() -> list[Tensor]:
    return [noise(f'effseg.P{i}', 1, 256, HEIGHT >> i, WIDTH >> i) for i in (2, 3, 4, 5)]


def regions(feats: list[Tensor], boxes: np.ndarray) -> tuple[Tensor, Tensor]:
    """RoI features and RoIs, in float64."""
    extractor = SingleRoIExtractor(dict(type='RoIAlign', output_size=14, sampling_ratio=0), 256,
                                   list(STRIDES))
    rois = torch.cat([torch.zeros(len(boxes), 1).double(), torch.from_numpy(boxes)], 1)
    return extractor.double()(feats, rois), rois


@pytest.fixture(scope='module')
def golden() -> dict[str, np.ndarray]:
    return authors.golden('effseg_head')


def test_the_position_code_is_the_authors(golden):
    """Channel by channel; each depends on the column or on the row alone."""
    code = sine_code(256, 14, 'cpu')
    for name, part in (('along_row3', code[:, 3]), ('along_column9', code[:, :, 9]),
                       ('every_16th_channel', code[::16])):
        np.testing.assert_allclose(part, golden[f'position_code_{name}'], rtol=0, atol=1e-6)


@pytest.mark.parametrize('run, boxes, budget', [
    ('budget300', 'inside', dict(per_image=300)), ('unlimited', 'inside', None),
    ('edge_unlimited', 'edge', None)])
@torch.no_grad()
def test_all_stages_are_the_authors(head, feats, golden, monkeypatch, run, boxes, budget):
    """Cells, their order, both branches, the composed and the pasted masks, boxes within the
    image and beyond it."""
    monkeypatch.setattr(head, 'budget', budget)
    step = 1 if budget else 16
    roi_feats, rois = regions(feats, golden[f'boxes_{boxes}'])
    np.testing.assert_array_equal(roi_levels(rois, 4, 56), golden[f'{run}_first_level'])
    said = head.run_stages(feats, roi_feats, rois, noise('effseg.queries', 3, 256), training=True)
    for s, stage in enumerate(said):
        name = f'{run}_stage{s}'
        assert len(stage.cells) == golden[f'{name}_count']
        if budget:
            np.testing.assert_array_equal(stage.cells[:, [0, 2, 1]],
                                          golden[f'{name}_cells_roi_x_y'])
        for branch in ('segmentation', 'refinement'):
            torch.testing.assert_close(getattr(stage, branch)[::step],
                                       torch.from_numpy(golden[f'{name}_{branch}']), **CLOSE)
    logits = compose(said, 3)
    np.testing.assert_allclose(logits[:, 0, ::2, ::2], golden[f'{run}_composed'], **CLOSE)
    whole = torch.tensor([[i, 0, 0, WIDTH, HEIGHT] for i in range(3)])
    pasted = sample_strips(logits.sigmoid(), rois[:, 1:].float(), whole)
    np.testing.assert_allclose(pasted[:, ::4, ::4], golden[f'{run}_mask_scores'], **CLOSE)


@pytest.fixture(scope='module')
def learned() -> tuple[dict[str, np.ndarray], Tensor]:
    """Golden losses and the true masks, bool."""
    golden = authors.golden('effseg_losses_targets')
    return golden, torch.from_numpy(authors.bits(golden['masks'], golden['masks_shape']))


def truth_of(golden: dict[str, np.ndarray], masks: Tensor) -> RoIMasks:
    """The masks' dtype is that of the coverage."""
    boxes, objects = (torch.from_numpy(golden[k]) for k in ('boxes', 'target_ids'))
    rois = torch.cat([torch.zeros(len(boxes), 1).double(), boxes], 1)
    return RoIMasks([masks], rois, objects, objects * 0)


@pytest.mark.parametrize('size', [14, 28, 56, 112])
def test_targets_are_the_authors(learned, size):
    """Coverage, and how many cells are of the object and partly covered.

    In float32 what is less than 1 by rounding depends on the machine, so that only float64 is
    counted. With our tolerance a cell counts as partly covered in float32 if and only if its
    coverage in float64 is partial by more than rounding.
    """
    golden, masks = learned
    covered, single = (truth_of(golden, masks.to(dtype)).coverage(size)
                       for dtype in (torch.float64, torch.float32))
    name = f'targets{size}_float64'
    assert int((covered > 0.5).sum()) == golden[f'{name}_segmentation_positive']
    assert int(((covered > 0) & (covered < 1)).sum()) == golden[f'{name}_refinement_positive']
    step = size // golden[f'coverage{size}'].shape[-1]
    np.testing.assert_allclose(covered[:, ::step, ::step], golden[f'coverage{size}'], **CLOSE)
    assert torch.equal(partly_covered(single), (covered > 1e-12) & (covered < 1 - 1e-12))


@pytest.mark.parametrize('run, budget', [
    ('budget300', dict(per_image=300)), ('budget1000000', None)])
def test_losses_are_the_authors(head, feats, learned, monkeypatch, run, budget):
    """Theirs are ours times the number of RoIs, but for the last stage's refinement loss.

    There they take rounded full coverage for partial. Without our tolerance that loss is theirs as
    well, and so is the gradient.
    """
    golden, masks = learned
    monkeypatch.setattr(head, 'budget', budget)
    truth = truth_of(golden, masks.float())
    roi_feats, rois = regions(feats, golden['boxes'])
    queries = noise('effseg.loss.queries', 8, 256).requires_grad_()

    def losses() -> dict[str, Tensor]:
        found = head.loss(feats, roi_feats, queries[torch.from_numpy(golden['query_ids'])], truth)
        return {name.removeprefix('loss_mask_'): len(rois) * loss for name, loss in found.items()}

    def apart(found: dict[str, Tensor]) -> dict[str, float]:
        return {name: abs(found[name].item() - float(golden[f'{run}_{name[:3]}_loss_{name[-1]}']))
                for name in found}

    with torch.no_grad():
        ours = apart(losses())
    assert 1e-4 < ours.pop('ref_3') < 2e-3
    assert max(ours.values()) < 1e-6 and len(ours) == 7
    monkeypatch.setattr(mask_head, 'TOLERANCE', 0.0)
    found = losses()
    assert max(apart(found).values()) < 1e-6
    gradient, = torch.autograd.grad(sum(found.values()), queries)
    np.testing.assert_allclose(gradient[:, ::8], golden[f'{run}_gradient_queries'], **CLOSE)
