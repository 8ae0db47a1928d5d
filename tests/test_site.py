"""The documentation as a site: every public name is on a page, every link leads somewhere."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def site():
    """The hooks, .ci/site.py."""
    pytest.importorskip('mkdocs')
    pytest.importorskip('griffe')
    spec = importlib.util.spec_from_file_location('mmsparse_site', ROOT / '.ci' / 'site.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def public_names():
    """What the tables of the packages name, each where it stands first."""
    for table in sorted((ROOT / 'mmsparse').rglob('__init__.pyi')):
        package = '.'.join(table.parent.relative_to(ROOT).parts)
        for line in ast.parse(table.read_text()).body:
            if isinstance(line, ast.ImportFrom):
                yield from (f'{package}.{alias.name}' for alias in line.names if alias.name != '*')


def documented_names():
    return [name for page in (ROOT / 'docs' / 'api').glob('*.md')
            for name in re.findall(r'^::: (\S+)$', page.read_text(), re.M)]


def test_every_public_name_is_in_the_api_reference():
    """Once: those of the tables by themselves, those of apis.py by their module."""
    names, documented = list(public_names()), documented_names()
    assert len(names) > 100
    assert set(names) <= set(documented), sorted(set(names) - set(documented))
    assert 'mmsparse.apis' in documented
    assert max(Counter(documented).values()) == 1
    packages = {name.rpartition('.')[0] for name in names}
    gone = [name for name in documented if name.rpartition('.')[0] in packages - {'mmsparse'}
            and name not in names]
    assert not gone


# ---- What .ci/site.py makes of the pages -------------------------------------------------------


@pytest.mark.parametrize(('page', 'target', 'expected'), [
    ('docs/crm.md', '../projects/refine/README.md', 'projects/refine/README.md'),
    ('docs/benchmarks/README.md', '../zoo.md', '../zoo.md'),
    ('docs/benchmarks/README.md', 'break_even.png', 'break_even.png'),
    ('docs/choose.md', '../README.md', 'index.md'),
    ('README.md', 'docs/install.md', 'install.md'),
    ('README.md', 'LICENSE', 'LICENSE'),
    ('projects/hrf/README.md', '../../docs/zoo.md', '../../zoo.md'),
    ('docs/zoo.md', 'https://arxiv.org/abs/2009.01907', 'https://arxiv.org/abs/2009.01907')])
def test_links_are_led_to_the_site(site, page, target, expected):
    """Those of code are left as they are."""
    from types import SimpleNamespace
    place = SimpleNamespace(file=SimpleNamespace(src_uri=site.place_in_site(page)))
    text = f'[a]({target}) [b]({target}#part)\n\n```text\n[c]({target})\n```\n'
    assert site.on_page_markdown(text, place, None, None) == (
        f'[a]({expected}) [b]({expected}#part)\n\n```text\n[c]({target})\n```\n')


def test_what_pages_link_to_comes_along(site):
    files = site.repository_files()
    assert files['index.md'] == 'README.md' and files['LICENSE'] == 'LICENSE'
    for path in [*ROOT.glob('*.md'), *ROOT.glob('projects/*/README.md')]:
        assert path.relative_to(ROOT).as_posix() in files.values()
    assert 'tests/data/authors/README.md' in files  # linked to by the README
    assert all((ROOT / path).exists() for path in files.values())
    assert all(site.path_in_repository(place) == path for place, path in files.items())


def test_the_tables_of_models_are_whole(site):
    tables = site.model_tables()
    models = [model for path in ROOT.glob('configs/*/metafile.yml')
              for model in yaml.safe_load(path.read_text())['Models']]
    rows = re.findall(r'^\| `(.+?)` .*\| (.+) \|$', tables, re.M)
    assert sorted(name for name, _ in rows) == sorted(model['Name'] for model in models)
    weights = dict(rows)
    for model in models:
        assert model['Weights'].rstrip('/') in weights[model['Name']]
        for figure in model['Results'][0]['Metrics'].values():
            assert str(figure) in tables
    assert site.MODELS in (ROOT / 'docs' / 'zoo.md').read_text()


def test_docstrings_are_markdown(site):
    import griffe
    text = 'See :func:`~a.b.name`.\n\n    And :class:`Other`::\n\n        code'
    seen = griffe.Function('f', docstring=griffe.Docstring(text))
    site.Roles().on_instance(obj=seen)
    assert seen.docstring.value == 'See `name`.\n\nAnd `Other`:\n\n    code'


# ---- The whole site ----------------------------------------------------------------------------


class Targets(HTMLParser):
    """Addresses and anchors of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors.update(filter(None, (attrs.get('id'), attrs.get('name'))))
        link = attrs.get('href') if tag in ('a', 'link') else attrs.get('src')
        if link:
            self.links.append(link)


@pytest.mark.slow
def test_the_site_is_whole(tmp_path):
    """It builds strictly, and all of its own addresses lead to files and anchors of it."""
    for package in ('mkdocs', 'material', 'mkdocstrings_handlers.python'):
        pytest.importorskip(package)
    result = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(tmp_path)],
        cwd=ROOT, env={**os.environ, 'NO_MKDOCS_2_WARNING': '1'}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    pages = {path: Targets(path.read_text()) for path in tmp_path.rglob('*.html')
             if path.name != '404.html'}
    assert len(pages) > 30
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            goal = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            goal = goal / 'index.html' if goal.is_dir() else goal
            assert goal.is_file(), f'{path.relative_to(tmp_path)}: {link}'
            if parts.fragment and goal in pages and parts.fragment != '__codelineno':
                assert unquote(parts.fragment) in pages[goal].anchors, f'{path}: {link}'
