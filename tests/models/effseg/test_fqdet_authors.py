"""FQDet, both versions as the configs have them, against the authors' own detector, in float64."""
import re
from typing import NamedTuple

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmsparse.models.effseg import FQDetBBoxHead, FQDetRPNHead
from mmsparse.models.effseg.matching import Candidates, best_anchors, selection_targets
from mmsparse.models.effseg.query_decoder import Decoded
from tests import authors
from tests.models.effseg.fqdet_builders import SECOND, config, on_meta
from tests.models.effseg.renamed import renamed as effseg_renamed

VERSIONS = {'v1': ('fqdet_r50_fpn_1x_coco', 'fqdet_v1_p2-p7'),
            'v2': (SECOND, 'fqdet_v2_p2-p7_detector_only')}
HEIGHT, WIDTH, IMAGES = 128, 256, 2
SHAPES = [(-(-HEIGHT // 2**i), -(-WIDTH // 2**i)) for i in range(2, 8)]
# the authors' names and ours: `rpn` the rpn_head, `box` the second stage
NORM_LINEAR = dict(norm=0, lin=2, conv=2)
RENAMED = [
    (r'group_init_sel\.logits\.pre\.0\.(norm|conv)', r'rpn.first.{}'),
    (r'group_init_sel\.logits\.pre\.1\.proj\.(norm|conv)', r'rpn.block.0.{}'),
    (r'group_init_sel\.logits\.pre\.1\.bottle\.(norm|conv)', r'rpn.block.1.{}'),
    (r'group_init_sel\.logits\.pre\.1\.expansion\.(norm|conv)', r'rpn.block.2.{}'),
    (r'group_init_sel\.logits\.proj\.conv', r'rpn.scores.1'),
    (r'group_init_sel\.post\.0\.module_list\.(\d)\.(norm|lin)', r'rpn.transitions.\1.{}'),
    (r'group_init_sel\.box_encoder\.0', r'box.code.first'),
    (r'group_init_sel\.box_encoder\.1\.(norm|lin)', r'box.code.second.{}'),
    (r'dec_layers\.(\d)\.0\.attn\.norm', r'box.decoder.\1.norms.0'),
    (r'dec_layers\.(\d)\.0\.attn\.msda\.sampling_offsets',
     r'box.decoder.\1.attentions.0.sampling_offsets'),
    (r'dec_layers\.(\d)\.0\.attn\.msda\.attn_weights',
     r'box.decoder.\1.attentions.0.attention_weights'),
    (r'dec_layers\.(\d)\.0\.attn\.msda\.val_proj', r'box.decoder.\1.attentions.0.value_proj'),
    (r'dec_layers\.(\d)\.0\.attn\.msda\.out_proj', r'box.decoder.\1.attentions.0.output_proj'),
    (r'dec_layers\.(\d)\.1\.norm', r'box.decoder.\1.norms.1'),
    (r'dec_layers\.(\d)\.1\.mha', r'box.decoder.\1.attentions.1.attn'),
    (r'dec_layers\.(\d)\.1\.mha\.out_proj', r'box.decoder.\1.attentions.1.attn.out_proj'),
    (r'dec_layers\.(\d)\.2\.mlp1\.norm', r'box.decoder.\1.norms.2'),
    (r'dec_layers\.(\d)\.2\.mlp1\.lin', r'box.decoder.\1.ffns.0.layers.0.0'),
    (r'dec_layers\.(\d)\.2\.mlp2\.lin', r'box.decoder.\1.ffns.0.layers.1'),
    (r'heads\.0\.logits', r'box.classify'),
    (r'heads\.0\.logits\.0\.(norm|lin)', r'box.classify.first.{}'),
    (r'heads\.0\.logits\.1\.(norm|lin)', r'box.classify.second.{}'),
    (r'heads\.0\.logits\.2', r'box.classify.last'),
    (r'heads\.1\.logits\.0\.(norm|lin)', r'box.regress.first.{}'),
    (r'heads\.1\.logits\.1\.(norm|lin)', r'box.regress.second.{}'),
]


def renamed(key: str, version: str) -> str:
    """Our name of one of the authors' entries."""
    place, entry = key.rsplit('.', 1)
    if found := re.fullmatch(r'heads\.1\.logits\.(\d)', place):
        return f'box.regress.{"last" if version == "v1" else found[1]}.{entry}'
    for pattern, name in RENAMED:
        if found := re.fullmatch(pattern, place):
            kind = NORM_LINEAR.get(found[found.re.groups]) if found.re.groups else None
            return f'{found.expand(name).format(kind)}.{entry}'
    raise KeyError(key)


class Run(NamedTuple):
    """Both stages, what they were given and made of it; rows by image, then by anchor."""

    golden: dict[str, np.ndarray]
    version: str
    rpn_head: FQDetRPNHead
    head: FQDetBBoxHead
    logits: Tensor
    ids: Tensor
    queries: Tensor
    codes: Tensor | None
    after: list[Tensor]
    found: Decoded
    losses: dict[str, Tensor]
    matched: Tensor
    test_cfg: ConfigDict

    def rows(self, x: Tensor) -> Tensor:
        """Those of ``[B, Q, C]`` that are stored."""
        return x.flatten(0, 1)[torch.from_numpy(self.golden['rows']).long()]


def anchors_of(rpn_head: FQDetRPNHead) -> Tensor:
    """In float64, ``[A, 4]``."""
    return torch.cat(rpn_head.prior_generator.grid_priors(SHAPES, torch.float64, 'cpu'))


def in_float64(name: str) -> tuple[FQDetRPNHead, FQDetBBoxHead, ConfigDict]:
    """Both stages and the test settings of a config, anchors and all."""
    model, before = config(name).model, torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # of the anchors
    try:
        parts = MODELS.build(model.rpn_head), MODELS.build(model.roi_head.bbox_head)
    finally:
        torch.set_default_dtype(before)
    return *parts, model.test_cfg.rcnn


def load(part: nn.Module, prefix: str, state: dict[str, Tensor]) -> None:
    """The entries under a prefix."""
    part.load_state_dict({k.removeprefix(prefix): v for k, v in state.items()
                          if k.startswith(prefix)})
    authors.widened(part)


@pytest.fixture(scope='module', params=list(VERSIONS))
def run(request) -> Run:
    version = request.param
    golden = authors.golden(f'fqdet_{version}')
    name, keys = VERSIONS[version]
    rpn_head, head, test_cfg = in_float64(name)
    state = {renamed(k, version): v for k, v in authors.state(keys, 'fqdet.').items()}
    load(rpn_head, 'rpn.', state)
    load(head, 'box.', state)
    x = [torch.from_numpy(authors.noise(f'fqdet.P{i}', (IMAGES, 256, *shape)))
         for i, shape in enumerate(SHAPES, 2)]
    rpn_head.all_anchors = lambda x: anchors_of(rpn_head)
    counts = golden['target_counts'].tolist()
    truth = [InstanceData(bboxes=b, labels=k) for b, k in zip(
        torch.from_numpy(golden['target_boxes']).split(counts),
        torch.from_numpy(golden['target_labels']).split(counts), strict=True)]
    feats, logits = rpn_head(x)
    chosen, queries = rpn_head.select(feats, logits)
    # Equal overlaps at the last place go to either anchor, which rounding decides: theirs here.
    # Ours are compared with them in test_the_best_anchors_are_the_authors.
    candidates = Candidates(torch.from_numpy(golden['top15_ids']).long().T % logits.shape[1],
                            torch.from_numpy(golden['top15_ious']).T,
                            torch.arange(IMAGES).repeat_interleave(torch.tensor(counts)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmsparse.models.effseg.rpn_head.best_anchors', lambda *_: candidates)
        first, proposals = rpn_head.loss_and_predict(
            x, [ConfigDict(gt_instances=t) for t in truth])
    order = chosen.argsort(1)
    # the decoder treats queries alike: ours stand in the order of their scores
    proposals = [InstanceData(**{k: v[o] for k, v in p.items()}) for p, o in zip(
        proposals, order, strict=True)]
    after, codes = [], []
    hooks = [layer.register_forward_hook(lambda m, a, out: after.append(out))
             for layer in (head.decoder[0], head.decoder[-1])]
    if head.code is not None:
        hooks.append(head.code.register_forward_hook(lambda m, a, out: codes.append(out)))
    found = head(x, proposals, [dict(img_shape=(HEIGHT, WIDTH))] * IMAGES)
    matched = torch.stack([p.matched for p in proposals])
    losses, _, factor = head.loss(found, matched, truth)
    for hook in hooks:
        hook.remove()
    # theirs are sums
    sums = {k: v * factor for k, v in {**first, **losses}.items()}
    ids = chosen.gather(1, order) + torch.arange(IMAGES)[:, None] * logits.shape[1]
    return Run(golden, version, rpn_head, head, logits, ids,
               torch.stack([p.features for p in proposals]), codes[0] if codes else None, after,
               found, sums, matched, test_cfg)


def check(found: Tensor, expected: np.ndarray, atol: float = 1e-6) -> None:
    torch.testing.assert_close(found.detach(), torch.from_numpy(expected).double(), rtol=0,
                               atol=atol)


# ---- the branches, one by one -------------------------------------------------------------------

def test_parameters_of_every_branch(run):
    """As many as theirs, part by part: a sum may hide two differences."""
    sizes = {}
    for key, shape, _ in authors.entries(VERSIONS[run.version][1]):
        part = '.'.join(renamed(key, run.version).split('.')[:2])
        sizes[part] = sizes.get(part, 0) + int(np.prod(shape))
    own = {f'{prefix}.{name}': sum(p.numel() for p in part.parameters())
           for prefix, whole in (('rpn', run.rpn_head), ('box', run.head))
           for name, part in whole.named_children()}
    own = {name: size for name, size in own.items() if size}
    assert own == sizes
    published = dict(v1=(153_425, 133_636, 6_843_966), v2=(20_817, 198_916, 9_860_926))
    assert (own['box.classify'], own['box.regress'], sum(own.values())) == published[run.version]


def test_every_entry_of_a_released_file_has_its_place():
    """FQDetV2 with EffSeg's head, whose entries stand under `heads.2`."""
    places = dict(rpn='rpn_head', box='roi_head.bbox_head')
    theirs = {}
    for key, shape, _ in authors.entries('fqdet_v2_p2-p7_with_effseg_as_released'):
        if key.startswith('heads.2.'):
            name = 'roi_head.mask_head.' + effseg_renamed(key.removeprefix('heads.2.'))
        else:
            part, name = renamed(key, 'v2').split('.', 1)
            name = f'{places[part]}.{name}'
        theirs[name] = int(np.prod(shape))
    assert theirs == {k: v.numel() for k, v in on_meta(SECOND).state_dict().items()
                      if k.startswith(('rpn_head', 'roi_head'))}


# ---- selection ----------------------------------------------------------------------------------

def test_the_same_anchors_are_selected(run):
    check(run.logits[:, ::11], run.golden['selection_logits'], 2e-6)  # stored in float32
    np.testing.assert_array_equal(run.ids.flatten(), run.golden['selected_ids'])


def test_queries_are_those_of_the_raw_map(run):
    check(run.rows(run.queries), run.golden['queries'])


# ---- decoder ------------------------------------------------------------------------------------

def test_the_decoder_is_the_authors(run):
    assert (run.codes is None) == (run.version == 'v2')
    if run.codes is not None:
        check(run.rows(run.codes), run.golden['anchor_codes'])
    check(run.rows(run.after[0]), run.golden['decoded_after_layer1'])
    check(run.rows(run.after[1]), run.golden['decoded_after_layer6'], 2e-6)  # stored in float32


def test_classes_and_boxes_are_the_authors(run):
    check(run.rows(run.found.logits), run.golden['class_logits'])
    check(run.rows(run.found.deltas), run.golden['deltas'])
    check(run.rows(run.found.anchors), run.golden['prior_boxes'])
    boxes = run.head.boxes(run.found.anchors.flatten(0, 1), run.found.deltas.flatten(0, 1))
    check(run.rows(boxes[None]), run.golden['boxes'])


# ---- matching, losses, detections ---------------------------------------------------------------

def test_matches_are_the_authors(run):
    row, counts = run.matched.flatten(), run.golden['target_counts']
    rows = (row >= 0).nonzero()[:, 0]
    before = np.repeat([0, counts[0]], run.matched.shape[1])
    np.testing.assert_array_equal(rows, run.golden['matched_query_rows'])
    np.testing.assert_array_equal(row[rows] + before[rows], run.golden['matched_targets'])


def test_losses_and_gradients_are_the_authors(run):
    for ours, theirs in (('loss_rpn_cls', 'sel'), ('loss_cls', 'cls'), ('loss_bbox', 'box')):
        np.testing.assert_allclose(run.losses[ours].item(), run.golden[f'{theirs}_loss'],
                                   rtol=1e-7, err_msg=ours)  # mmdet encodes boxes in float32
    names = {renamed(k.removeprefix('gradient_norm__'), run.version): k
             for k in run.golden if k.startswith('gradient_norm__')}
    own = {**{f'rpn.{k}': p for k, p in run.rpn_head.named_parameters()},
           **{f'box.{k}': p for k, p in run.head.named_parameters()}}
    gradients = torch.autograd.grad(sum(run.losses.values()), [own[name] for name in names])
    for gradient, key in zip(gradients, names.values(), strict=True):
        np.testing.assert_allclose(gradient.norm(), run.golden[key], rtol=1e-7, err_msg=key)


def test_detections_are_the_authors(run):
    """As sets: scores may be 1e-8 apart. Boxes reach beyond the image. In float32, as mmcv's NMS
    wants it."""
    results = run.head.predict(Decoded(*(t.detach().float() for t in run.found)), run.test_cfg)
    for i, result in enumerate(results):
        theirs = {k: torch.from_numpy(run.golden[f'detections{i}_{k}'])
                  for k in ('boxes', 'scores', 'labels')}
        apart = ((result.bboxes[:, None] - theirs['boxes']).abs().amax(2)
                 + (result.scores[:, None] - theirs['scores']).abs()
                 + (result.labels[:, None] != theirs['labels']))
        assert len(result) == 100 and apart.amin(0).max() < 1e-3
        assert sorted(apart.argmin(1).tolist()) == list(range(100))
        assert (result.bboxes < 0).any(), 'nothing is clipped'


# ---- anchors and crowds -------------------------------------------------------------------------

def test_anchors_are_the_authors():
    """And in their order, so that entries of their weights need no other one."""
    golden = authors.golden('fqdet_anchors')
    rpn_head = MODELS.build(config(VERSIONS['v1'][0]).model.rpn_head)
    np.testing.assert_array_equal(SHAPES, golden['level_sizes'])
    anchors = rpn_head.all_anchors([torch.empty(1, 1, *shape) for shape in SHAPES])
    assert anchors.dtype == torch.float32 and len(anchors) == golden['total']
    rows = golden['first_and_last_cell_of_every_level_rows']
    np.testing.assert_allclose(
        anchors[rows], golden['first_and_last_cell_of_every_level_xyxy'], rtol=0, atol=1e-4)
    np.testing.assert_allclose(anchors[1000], golden['row1000'], rtol=0, atol=1e-4)


def agree(found: Candidates, total: int, ids: np.ndarray) -> None:
    """The 15 best anchors of each object, but for the order of equals; ids count all images'."""
    apart = np.abs(np.diff(found.overlaps.numpy(), axis=1)) > 1e-12
    # the last may equal the sixteenth
    alone = np.pad(apart, ((0, 0), (1, 0)), constant_values=True) & np.pad(apart, ((0, 0), (0, 1)))
    assert alone.mean() > 0.3
    mine = (found.anchors + total * found.image[:, None]).numpy()
    np.testing.assert_array_equal(mine[alone], ids.T[alone])


def test_the_best_anchors_are_the_authors(run):
    boxes = torch.from_numpy(run.golden['target_boxes']).split(run.golden['target_counts'].tolist())
    anchors = anchors_of(run.rpn_head)
    found = best_anchors(anchors, list(boxes), 15)
    agree(found, len(anchors), run.golden['top15_ids'])
    check(found.overlaps.T, run.golden['top15_ious'], 1e-12)
    theirs = Candidates(torch.from_numpy(run.golden['top15_ids']).long().T % len(anchors),
                        found.overlaps, found.image)
    wanted = selection_targets(theirs, IMAGES, len(anchors), 5)
    np.testing.assert_array_equal(wanted.flatten().nonzero()[:, 0],
                                  run.golden['selection_positive_ids'])


@pytest.mark.parametrize('case', range(4))
def test_crowds_are_matched_as_the_authors_do(case):
    """Nineteen boxes of two images that compete for the same anchors."""
    name = f'case{case}_'
    golden = {k.removeprefix(name): v for k, v in authors.golden('fqdet_matching').items()
              if k.startswith(name)}
    anchors = anchors_of(in_float64(VERSIONS['v1'][0])[0])
    found = best_anchors(anchors, list(torch.from_numpy(golden['boxes']).split([12, 7])), 15)
    agree(found, len(anchors), golden['top15_ids'])

    def positives(objects: np.ndarray, count: int) -> set[int]:
        some = Candidates(*(part[torch.from_numpy(objects)] for part in found))
        wanted = selection_targets(some, IMAGES, len(anchors), count)
        return set(wanted.flatten().nonzero()[:, 0].tolist())

    # where the fifth equals the sixth, either may be positive
    settled = golden['iou_rank5_minus_rank6'] > 1e-12
    theirs = set(golden['positive_ids'].tolist())
    assert positives(settled, 5) <= theirs
    assert theirs <= positives(settled, 5) | positives(~settled, 15)
    assert 8 < settled.sum() < 19
