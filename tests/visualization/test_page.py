"""The page, opened in a browser without a network: what it says is what numpy says."""
import base64
import re

import cv2
import numpy as np
import pytest
import torch

from mmsparse.apis import inference, init_model
from mmsparse.datasets.scenes import render_scene
from mmsparse.visualization import SelectorScore, changes, html_page, paint_classes
from mmsparse.visualization import page as module
from mmsparse.visualization.panels import FIXED, LOOKED, MADE
from tests.browser import chromium
from tests.configs import config
from tests.models.tiny import refine_cfg, vary_classes

SIZE = H, W = 120, 200
CLASSES = tuple('abcde')
PALETTE = [[250, 20, 30], [40, 240, 60], [10, 20, 255], [255, 255, 0], [90, 0, 90]]
ABOUT = dict(title='a.png', classes=CLASSES, palette=PALETTE)


@pytest.fixture(scope='module')
def maps():
    """By a model with random weights: image, low, refined, label, score, selected."""
    torch.manual_seed(0)
    model = init_model(config(model=refine_cfg(alpha=.5), dataset='mmseg.BaseSegDataset',
                              metainfo=dict(classes=CLASSES)), device='cpu')
    image, label = render_scene(0, SIZE)
    vary_classes(model, torch.from_numpy(image.transpose(2, 0, 1).copy()))
    model.test_cfg['keep_score'] = True
    label = np.where(label < 5, label, 255)
    label[:, :20] = 255
    sample = inference(model, image)
    return dict(image=image, label=label, **{
        name: sample.get(field).data[0].numpy() for name, field in dict(
            low='low_res_sem_seg', refined='pred_sem_seg', score='selection_score',
            selected='selected').items()})


@pytest.fixture(scope='module')
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def visit(browser, tmp_path):
    """Opens HTML as a file, without a network; errors and requests on the page fail the test."""
    troubles = []
    context = browser.new_context(viewport=dict(width=1200, height=800), offline=True)

    def visit(text):
        file = tmp_path / 'a page.html'
        file.write_text(text, encoding='utf-8')
        page = context.new_page()
        page.on('pageerror', lambda error: troubles.append(str(error)))
        page.on('console', lambda message: troubles.append(message.text) if (
            message.type == 'error') else None)
        page.on('request', lambda request: troubles.append(request.url) if (
            request.url != file.as_uri()) else None)
        page.goto(file.as_uri())
        page.wait_for_selector('body[data-ready]')
        return page

    yield visit
    context.close()
    assert not troubles


def refined_page(maps, threshold=.5, **settings):
    score = SelectorScore(maps['score'], maps['selected'], threshold, np.log(5), 'Entropy', 'alpha')
    return html_page(maps['image'], maps['refined'], **dict(
        ABOUT, before=maps['low'], label=maps['label'], score=score, before_name='Low',
        result_name='Fine') | settings)


def number(page, name):
    """The percentage that an element shows."""
    return float(re.fullmatch(r'(?:.* )?([\d.]+) %', page.inner_text(f'#{name}'))[1])


def shares(maps, chosen):
    """Density, recall and precision in percent, by their definitions."""
    known = maps['label'] != 255
    wrong = (maps['low'] != maps['label']) & known
    return dict(density=100 * chosen.mean(), recall=100 * (chosen & wrong).sum() / wrong.sum(),
                precision=100 * (chosen & wrong).sum() / max((chosen & known).sum(), 1))


def shown(page, maps, chosen):
    for name, value in shares(maps, chosen).items():
        assert number(page, name) == pytest.approx(value, abs=.00501), name


def test_the_slider_tells_density_and_recall_of_any_threshold(visit, maps):
    """From the model's entropy itself, at the thresholds that the page names."""
    page = visit(refined_page(maps))
    assert page.inner_text('#value') == 'alpha = 0.5'
    assert 0.2 < maps['selected'].mean() < 0.8
    shown(page, maps, maps['selected'])
    page.focus('#threshold')
    seen = set()
    for key in ['ArrowRight'] * 3 + ['PageDown'] * 4 + ['Home', 'ArrowRight'] + ['PageUp'] * 9 + [
            'End', 'ArrowLeft']:
        page.keyboard.press(key)
        value = np.float32(page.inner_text('#value').split()[-1])
        seen.add(float(value))
        if maps['score'].max() > value:  # else precision is that of nothing
            shown(page, maps, maps['score'] > value)
    assert len(seen) > 15 and 0 in seen
    page.click('#own')
    shown(page, maps, maps['selected'])


def test_mask_of_a_budget(visit, maps):
    """The model's own mask is not what its threshold alone would select."""
    kept = maps['selected'] & (np.arange(W) % 3 > 0)
    score = SelectorScore(maps['score'], kept, .5, np.log(5), 'Entropy', 'alpha')
    page = visit(refined_page(maps, score=score))
    shown(page, maps, kept)
    assert f'{100 * maps["selected"].mean():.2f} %' in page.inner_text('#budget')
    page.press('#threshold', 'ArrowRight')
    value = np.float32(page.inner_text('#value').split()[-1])
    assert value > .5
    shown(page, maps, maps['score'] > value)


def test_errors_and_classes(visit, maps):
    page = visit(refined_page(maps))
    low, refined, label = (maps[name] for name in ('low', 'refined', 'label'))
    known = label != 255
    masks = dict(zip(('fixed', 'made'), changes(low, refined, label), strict=True))
    masks['left'] = (low != label) & (refined != label) & known
    for name, mask in masks.items():
        assert page.inner_text(f'#share-{name}') == (
            f'{mask.sum():,} px, {100 * mask.sum() / known.sum():.2f} %')
    for name, found in (('before', low), ('result', refined)):
        assert number(page, f'right-{name}') == pytest.approx(
            100 * (found == label)[known].mean(), abs=.00501)
    rows = page.query_selector_all('#classes li')
    present = [k for k in range(5) if (refined == k).any() or (label == k).any()]
    assert len(rows) == len(present)
    for k, row in zip(present, rows, strict=True):
        ious = [((found == k) & (label == k)).sum() / (((found == k) | (label == k)) & known).sum()
                for found in (low, refined)]
        assert row.inner_text().split('\n')[0] == CLASSES[k]
        assert f'{100 * (refined == k).mean():.2f} %' in row.inner_text()
        assert ' → '.join(f'{100 * iou:.1f}' for iou in ious) in row.inner_text()


PIXELS = '''() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
  const copy = document.createElement('canvas');
  [copy.width, copy.height] = [W, H];
  copy.getContext('2d').drawImage(canvas, -state.x, -state.y);
  done(copy.toDataURL().split(',')[1]);
})))'''


def pixels(page):
    """What is drawn of the picture, pixel by pixel, BGR."""
    page.click('#full')
    page.evaluate('() => move(Math.round(state.x), Math.round(state.y))')
    content = np.frombuffer(base64.b64decode(page.evaluate(PIXELS)), np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_COLOR)


def test_left_and_right_of_the_divider(visit, maps):
    """Full size, colors exact; the divider by keys, the sides by choice."""
    page = visit(refined_page(maps))
    page.fill('#opacity', '100')
    low, refined = (paint_classes(maps[name], PALETTE) for name in ('low', 'refined'))
    drawn = pixels(page)
    middle = page.evaluate('() => Math.round(state.split * canvas.width - state.x)')
    assert 0 < middle < W
    assert (drawn[:, :middle - 1] == low[:, :middle - 1]).all()
    assert (drawn[:, middle + 1:] == refined[:, middle + 1:]).all()
    assert (low != refined)[:, middle:].any()
    page.press('#divider', 'Home')
    assert (pixels(page) == refined).all()
    page.press('#divider', 'End')
    assert (pixels(page) == low).all()
    assert page.get_attribute('#divider', 'aria-valuenow') == '100'
    page.select_option('#left', 'label')
    assert (pixels(page) == paint_classes(np.where(maps['label'] == 255, -1, maps['label']),
                                          PALETTE))[maps['label'] != 255].all()
    page.select_option('#left', 'image')
    difference = np.abs(pixels(page).astype(int) - maps['image'])  # a JPEG
    assert difference.mean() < 8


def test_layers(visit, maps):
    """Each in its color where its mask is, and nowhere else."""
    page = visit(refined_page(maps))
    page.select_option('#left', 'image')
    page.press('#divider', 'End')
    bare = pixels(page)
    fixed, made = changes(maps['low'], maps['refined'], maps['label'])
    page.press('#threshold', 'ArrowLeft')  # shows the mask that it speaks of
    value = np.float32(page.inner_text('#value').split()[-1])
    for name, color, mask in (('selected', LOOKED, maps['score'] > value),
                              ('fixed', FIXED, fixed), ('made', MADE, made)):
        page.check(f'#layer-{name}')
        drawn = pixels(page)
        page.uncheck(f'#layer-{name}')
        assert mask.any() and (drawn[~mask] == bare[~mask]).all()
        before, after = (np.abs(shot.astype(int) - color).sum(-1) for shot in (bare, drawn))
        assert (after < before)[mask].mean() > .95
    page.check('#layer-score')
    brightness = pixels(page)[..., 1]  # viridis: green grows with the score
    high = maps['score'] > np.quantile(maps['score'], .9)
    low = maps['score'] < np.quantile(maps['score'], .1)
    assert brightness[high].mean() > brightness[low].mean() + 10


def test_a_class_is_hidden_and_shown(visit, maps):
    page = visit(refined_page(maps))
    page.fill('#opacity', '100')
    page.press('#divider', 'Home')
    shown = pixels(page)
    k = int(np.bincount(maps['refined'].ravel()).argmax())
    button = page.locator('#classes button', has_text=CLASSES[k])
    button.click()
    assert button.get_attribute('aria-pressed') == 'false'
    hidden = pixels(page)
    assert ((hidden != shown).any(-1) <= (maps['refined'] == k)).all() and (hidden != shown).any()
    page.click('#all')
    assert (pixels(page) == shown).all()


def test_zoom_by_wheel_and_keys_stays_at_its_place(visit, maps):
    page = visit(refined_page(maps))
    before = page.evaluate('() => [state.scale, (300 - state.x) / state.scale]')
    page.mouse.move(300, 300)
    page.mouse.wheel(0, -400)
    page.wait_for_function(f'() => state.scale > {1.2 * before[0]}')
    assert page.evaluate('() => (300 - state.x) / state.scale') == pytest.approx(before[1])
    assert 'x ' in page.inner_text('#readout')
    page.focus('#canvas')
    for key in ('+', '-', 'ArrowLeft', '1'):
        page.keyboard.press(key)
    assert page.evaluate('() => state.scale * devicePixelRatio') == pytest.approx(1)
    page.keyboard.press('0')
    assert page.evaluate('() => state.scale') == pytest.approx(before[0])


def test_the_readout_names_the_pixel(visit, maps):
    page = visit(refined_page(maps))
    y, x = 77, 31
    place = page.evaluate(f'() => [state.x + {x + .5} * state.scale, '
                          f'state.y + {y + .5} * state.scale]')
    box = page.locator('#viewer').bounding_box()
    page.mouse.move(box['x'] + place[0], box['y'] + place[1])
    low, fine = CLASSES[maps['low'][y, x]], CLASSES[maps['refined'][y, x]]
    truth = maps['label'][y, x]
    text = page.inner_text('#readout')
    assert text.startswith(f'x {x}, y {y} · Low: {low} · Fine: {fine} · Ground truth: '
                           f'{"none" if truth == 255 else CLASSES[truth]} · Entropy: ')
    under, over = map(float, re.search(r'Entropy: (\S+) to (\S+)', text).groups())
    assert under <= maps['score'][y, x] <= over


def test_dark_and_light(visit, maps):
    page = visit(refined_page(maps))
    colors = []
    for _ in range(3):
        colors.append(page.evaluate('() => getComputedStyle(document.body).color'))
        page.click('#theme')
    assert colors[0] == colors[2] != colors[1]


def test_without_labels_and_without_a_refinement(visit, maps):
    """What there is no number for is not shown."""
    page = visit(refined_page(maps, label=None))
    assert number(page, 'density') == pytest.approx(100 * maps['selected'].mean(), abs=.00501)
    assert not page.is_visible('#recall') and not page.is_visible('#right-result')
    assert page.query_selector_all('#layers li')[2:] == []
    page = visit(html_page(maps['image'], maps['refined'], **ABOUT))
    assert not page.is_visible('#selector') and not page.is_visible('#time')
    assert [option.inner_text() for option in page.query_selector_all('#left option')] == [
        'Picture', 'Prediction']
    page = visit(html_page(maps['image'], maps['refined'], label=maps['label'], **ABOUT))
    known = maps['label'] != 255
    wrong = (maps['refined'] != maps['label']) & known
    assert page.inner_text('#share-left') == (
        f'{wrong.sum():,} px, {100 * wrong.sum() / known.sum():.2f} %')


@pytest.mark.parametrize('k', [255, 256, 300])
def test_many_classes(visit, maps, k):
    """One byte per pixel is too few from 256 on, with that for a pixel without a label."""
    rng = np.random.default_rng(0)
    result, label = rng.integers(0, k, (2, H, W))
    result[0, :2], label[1] = (k - 1, 254), -1
    page = visit(html_page(
        maps['image'], result, label=label, ignore_index=-1, title='many',
        classes=[f'class {i}' for i in range(k)], palette=rng.integers(0, 255, (k, 3)).tolist()))
    wrong = (result != label) & (label != -1)
    assert page.inner_text('#share-left').startswith(f'{wrong.sum():,} px')
    name = page.query_selector_all('#classes li')[k - 1].inner_text()
    assert name.startswith(f'class {k - 1}\n{100 * (result == k - 1).mean():.2f} %')


def test_times_and_facts_and_names_that_look_like_code(visit, maps):
    nasty = '</script><b>&amp; @@data ${1}'
    page = visit(refined_page(
        maps, title=nasty, milliseconds=dict(first=30., second=10.), facts=dict(model=nasty),
        classes=(nasty, *CLASSES[1:])))
    assert page.inner_text('#title') == nasty and nasty in page.inner_text('#facts')
    assert nasty in page.inner_text('#classes')
    rows = [row.inner_text().split('\t') for row in page.query_selector_all('#stages tr')]
    assert rows == [['first', '30.0 ms', '75.0 %'], ['second', '10.0 ms', '25.0 %'],
                    ['together', '40.0 ms', '100.0 %']]


# ---- Without a browser ----


@pytest.mark.parametrize('threshold', [0, 1e-5, .3, 1.2345678, 1.609, 5.0])
def test_levels_are_exact_at_every_step(threshold):
    """Also for scores that are steps themselves, compared in float32 as the selector does."""
    rng = np.random.default_rng(0)
    score = SelectorScore(np.zeros(1), np.zeros(1), threshold, np.log(5), 'Entropy', 'alpha')
    steps = score.steps()
    assert steps.dtype == np.float32 and 200 < len(steps) <= 255 and np.float32(threshold) in steps
    assert (np.diff(steps) > 0).all() and steps[0] == 0
    values = np.concatenate([steps, np.nextafter(steps, np.float32(9)),
                             rng.uniform(0, 1.6, 999).astype(np.float32)])
    score = SelectorScore(values, values > threshold, threshold, np.log(5), 'Entropy', 'alpha')
    for i, step in enumerate(steps):
        assert ((score.levels() > i) == (values > step)).all()
    described = score.described()
    assert np.float32(described['steps'][described['own']]) == np.float32(threshold)
    assert (np.float32(described['steps']) == steps).all()


@pytest.mark.parametrize('change, message', [
    (dict(palette=PALETTE[:4]), 'a color for each class, got 4 for 5'),
    (dict(label=np.zeros((3, 4), int)), r'label has \[3, 4\] pixels, the picture \[120, 200\]'),
    (dict(label=np.full(SIZE, 7)), 'label holds numbers from 7 to 7; classes are 0 to 4'),
    (dict(before=np.full(SIZE, -1)), 'before holds numbers from -1 to -1'),
    (dict(before=None), 'belongs to the map that it looked at'),
])
def test_what_is_refused(maps, change, message):
    with pytest.raises(ValueError, match=message):
        refined_page(maps, **change)


def test_too_large_for_a_browser(maps, monkeypatch):
    monkeypatch.setattr(module, 'MOST_PIXELS', H * W - 1)
    with pytest.raises(ValueError, match='cut it into parts'):
        refined_page(maps)


def test_a_page_stays_small():
    """Two megapixels of a scene: maps cost less than the picture."""
    image, label = render_scene(1, (1024, 2048))
    text = html_page(image, label, before=label, label=label, title='scene',
                     classes=[str(k) for k in range(11)], palette=[[0, 0, k] for k in range(11)])
    bare = html_page(image, label * 0, title='scene', classes='a', palette=[[0, 0, 0]])
    assert len(text) - len(bare) < len(bare) < 3e6
