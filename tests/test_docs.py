"""What the pages say works: code runs, configs build, commands exist, links lead somewhere."""
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md'), *ROOT.glob('projects/*/README.md')])
BLOCK = re.compile(r'^```python\n(.*?)^```', re.M | re.S)


def blocks(config):
    found = [(page, code) for page in PAGES for code in BLOCK.findall(page.read_text())
             if ('_base_' in code) == config]
    return [pytest.param(code, id=f'{page.relative_to(ROOT)}-{i}',
                         marks=[pytest.mark.slow] * (page.name == 'export.md'))
            for i, (page, code) in enumerate(found)]


@pytest.mark.parametrize('code', blocks(config=False))
def test_code_runs(code, loading):
    exec(compile(code, '<page>', 'exec'), {})


@pytest.mark.parametrize('code', blocks(config=True))
def test_config_builds(code, tmp_path):
    from mmengine.registry import MODELS, init_default_scope

    from mmsparse.engine.config import read_config
    (tmp_path / 'config.py').write_text(code)
    cfg = read_config(tmp_path / 'config.py')
    init_default_scope(cfg.default_scope)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert len(list(MODELS.build(cfg.model).parameters())) > 10


def test_links_lead_somewhere():
    """The checker of ``make lint``; test_install.py shows that it finds what is wrong."""
    result = subprocess.run([sys.executable, str(ROOT / '.ci' / 'lint_docs.py')],
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize('page', PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_names_lead_somewhere(page):
    text = page.read_text()
    for name in re.findall(r'`((?:tests|tools|docs|configs|projects|requirements)/[\w./-]+\w)`',
                           text):
        assert (ROOT / name).exists(), f'{page.name} names missing {name}'
    for config in re.findall(r'\b((?:sparserefine|fcn)_[a-z][\w.-]+\.py)\b', text):
        assert config.startswith('fcn_hr48_4xb2') or list(ROOT.glob(f'configs/*/{config}')), config
    for make in re.findall(r'^make ([\w-]+)', text, re.M):
        assert re.search(rf'^{make}:', (ROOT / 'Makefile').read_text(), re.M), make


def test_every_tool_named_on_a_page_exists():
    for page in PAGES:
        for name in re.findall(r'mim run mmsparse (\w+)', page.read_text()):
            found = list((ROOT / 'tools').rglob(f'{name}.py'))
            assert found, f'{page.name}: mim run mmsparse {name}'


def test_the_benchmark_page_quotes_the_committed_figures():
    """Times and ratios of docs/benchmarks/README.md and README.md are those of cpu.json."""
    found = json.loads((ROOT / 'docs/benchmarks/cpu.json').read_text())
    page = (ROOT / 'docs/benchmarks/README.md').read_text()
    rows = dict(zip(('unet_5', 'unet_6', 'unet_5_wide', 'unet_6_wide'),
                    re.findall(r'stages \| ([\d.]+) s \| ([\d.]+) s \|', page), strict=True))
    for key, (ours, port) in rows.items():
        assert float(ours) == round(found[key]['auto']['ms'] / 1000, 2)
        assert float(port) == round(found[key]['sparse']['ms'] / 1000, 2)
    titles = dict(hrnet='FCN-HRNet-W48', segformer='SegFormer-B5', segnext='SegNeXt-L',
                  mask2former_t='Mask2Former Swin-T', mask2former_l='Mask2Former Swin-L')
    titles = {key: title for key, title in titles.items() if f'pair_{key}' in found}
    assert len(titles) >= 4
    for key, title in titles.items():
        seconds = [f'{found[f"pair_{key}"][model]["milliseconds"] / 1000:.2f} s'
                   for model in ('dense', 'refined', 'refined-s')]
        speedups = [f'{found[f"e2e_{key}{suffix}"]:.2f}x' for suffix in ('', '_s')]
        assert f'| {title} | {" | ".join(seconds)} | {" | ".join(speedups)} |' in page
    readme = ' '.join((ROOT / 'README.md').read_text().split())
    for suffix in ('', '_s'):
        values = [found[f'e2e_{key}{suffix}'] for key in titles]
        assert f'{min(values):.1f} to {max(values):.1f} times' in readme
    even = json.loads((ROOT / 'docs/benchmarks/plots.json').read_text())['break_even']
    assert len(even) >= 8
    for key in titles.keys() & even:
        title = titles[key]
        shares = [even[f'{key}{suffix}']['break_even'] for suffix in ('', '_s')]
        told = ['none' if x is None else f'{x:.0%}'.replace('%', ' %') for x in shares]
        assert f'| {title} | {" | ".join(told)} |' in page


def test_pages_quote_the_figures_of_the_gpu():
    pages = [(ROOT / 'docs' / name).read_text() for name in ('benchmarks/README.md', 'effseg.md')]
    rows, heads = (json.loads((ROOT / f'docs/benchmarks/{name}nvidia-h200.json').read_text())
                   for name in ('', 'heads_'))
    names = dict(hrnet='FCN-HRNet-W48', segformer='SegFormer-B5')
    for row in (row for row in rows['results'] if row['precision'] == 'fp16'):
        images = {1: '1 image', 4: '4 images'}[row['batch_size']]
        told = [row['dense']['milliseconds'], row['refined']['milliseconds']]
        cells = [*(f'{x:.1f}' for x in told),
                 *(f'{row[key]:.2f}' for key in ('speedup', 'graphed_speedup'))]
        line = f'| {names[row["baseline"]]}, {images} | {" | ".join(cells)} |'
        assert line in pages[0].replace('**', ''), line
    for name, row in heads['heads'].items():
        line = (f'| {name} | {row["rois"]} | {row["gmacs"]:.1f} | {1000 * row["seconds"]:.1f} '
                f'| {row["peak_mib"]:.0f} |')
        assert line in pages[1], line


def test_the_page_on_refiners_quotes_the_committed_figures():
    page = (ROOT / 'docs/which-refiner.md').read_text()
    found, plots = (json.loads((ROOT / f'docs/benchmarks/{name}.json').read_text())
                    for name in ('cpu', 'plots'))
    for times in plots['unet_ms'].values():
        told = ' / '.join(f'{times[share]:.0f}' for share in ('0.05', '0.1', '0.35'))
        assert f'| {told} |' in page
    for pair in (pair for key, pair in found.items() if key.startswith('pair_')):
        seconds = [pair['dense']['milliseconds'], pair['refined']['stages']['low-resolution pass'],
                   pair['refined']['milliseconds'], pair['refined-s']['milliseconds']]
        assert f'| {" | ".join(f"{ms / 1000:.2f} s" for ms in seconds)} |' in page


def test_the_benchmark_page_quotes_the_real_time_figures():
    page = (ROOT / 'docs/benchmarks/README.md').read_text()
    titles = {'swiftnet-ss_r18': 'SwiftNet, ResNet-18', 'swiftnet-ss_mnv2': 'SwiftNet, MobileNetV2',
              'swiftnet-pyr2_r18': 'SwiftNet pyramid, ResNet-18',
              'swiftnet-pyr2_mnv2': 'SwiftNet pyramid, MobileNetV2', 'pidnet-s': 'PIDNet-S',
              'ddrnet_23-slim': 'DDRNet23-slim', 'stdc1': 'STDC1', 'bisenetv2': 'BiSeNetV2',
              'fast_scnn': 'Fast-SCNN'}
    sizes = [json.loads((ROOT / f'docs/benchmarks/realtime_{size}.json').read_text())
             for size in ('1024x2048', '512x1024')]
    for key, title in titles.items():
        rows = [next(r for r in found['results'] if r['name'].startswith(f'{key}_')
                     and r['mode'] == mode) for found in sizes for mode in ('forward', 'paper')]
        parameters, = (n for name, n in sizes[0]['parameters'].items()
                       if name.startswith(f'{key}_'))
        times = ' | '.join(f'{row["milliseconds"]:.0f}' for row in rows)
        assert (f'| {title} | {parameters / 1e6:.2f} | {rows[0]["gmacs"]:.1f} | {times} |'
                in page), title
