"""Hooks of mkdocs: what the site has beyond the pages in docs/.

Links are written for the repository, relative to the file that they stand in; here those that leave
docs/ are led to copies of their targets in the site. Nothing is generated into the repository.
"""
from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
# Pages outside docs/; what they link to follows.
PAGES = [path.relative_to(ROOT).as_posix() for pattern in ('*.md', 'projects/*/README.md')
         for path in ROOT.glob(pattern)]
LINK = re.compile(r'(?<=\]\()([^)\s#]+)(?=[)#])')
FENCE = re.compile(r'^(```.*?^```)', re.M | re.S)
MODELS = '<!-- models -->'


# ---- Files and links ---------------------------------------------------------------------------


def place_in_site(path: str) -> str:
    """Where a file of the repository lies in the site: docs/ is the root, README.md its index.

    A folder is a page that lists it.
    """
    if (ROOT / path).is_dir():
        return f'{path}/index.md'
    return 'index.md' if path == 'README.md' else path.removeprefix('docs/')


def goal_of(path: str, target: str) -> str:
    """The file or folder, below the root of the repository, that a link in ``path`` leads to."""
    folder = path if (ROOT / path).is_dir() else posixpath.dirname(path)
    return posixpath.normpath(posixpath.join(folder, target))


def linked(path: str, markdown: str) -> Iterator[str]:
    """The files, below the root of the repository, that a page links to."""
    for part in FENCE.split(markdown)[::2]:
        for target in LINK.findall(part):
            if '://' not in target and not target.startswith('mailto:'):
                yield goal_of(path, target)


def path_in_repository(place: str) -> str:
    """The way back from ``place_in_site``."""
    if place == 'index.md':
        return 'README.md'
    if (ROOT / 'docs' / place).is_file():
        return f'docs/{place}'
    folder = place.removesuffix('/index.md')
    return folder if (ROOT / folder).is_dir() else place


def content(path: str) -> str:
    """The text of a page, or a list of the files in a folder."""
    place = ROOT / path
    if place.is_file():
        return place.read_text(encoding='utf-8')
    names = sorted(file.name for file in place.iterdir() if file.is_file())
    return f'# {path}\n\n' + ''.join(f'- [{name}]({name})\n' for name in names)


def repository_files() -> dict[str, str]:
    """{place in the site: file of the repository} of all outside docs/ that is linked to."""
    pages = {f'docs/{p.relative_to(ROOT / "docs").as_posix()}' for p in
             (ROOT / 'docs').rglob('*.md')} | set(PAGES)
    waiting = sorted(pages)
    while waiting:
        path = waiting.pop()
        if path.endswith('.md') or (ROOT / path).is_dir():
            new = set(linked(path, content(path))) - pages
            pages |= new
            waiting.extend(sorted(new))
    return {place_in_site(path): path for path in sorted(pages) if not path.startswith('docs/')}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The version, from its one place."""
    version: dict[str, str] = {}
    exec((ROOT / 'mmsparse' / 'version.py').read_text(), version)
    config.copyright = f'mmsparse {version["__version__"]}, Apache-2.0'
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Bring in what lies outside docs/."""
    for place, path in repository_files().items():
        source = ROOT / path
        files.append(File.generated(config, place, content=content(path)) if source.is_dir()
                     else File.generated(config, place, abs_src_path=str(source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where their targets lie in the site; put the tables of models in."""
    place = page.file.src_uri
    path = path_in_repository(place)

    def lead(match: re.Match) -> str:
        target = match[1]
        if '://' in target or target.startswith('mailto:'):
            return target
        goal = goal_of(path, target)
        return posixpath.relpath(place_in_site(goal), posixpath.dirname(place) or '.')

    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(lead, part) for part in parts[::2]]
    text = ''.join(parts)
    return text.replace(MODELS, model_tables()) if MODELS in text else text


# ---- The tables of models ----------------------------------------------------------------------


def model_tables() -> str:
    """A table for each metafile, in the order of model-index.yml."""
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    return '\n\n'.join(model_table(ROOT / path) for path in index['Import'])


def model_table(path: Path) -> str:
    """One method: config, data, figures, weights."""
    metafile = yaml.safe_load(path.read_text(encoding='utf-8'))
    collection, = metafile['Collections']
    rows = [f'### {collection["Name"]}', '', f'[Paper]({collection["Paper"]})', '',
            '| config | data | figures | weights |', '|---|---|---|---|']
    for model in metafile['Models']:
        result, = model['Results']
        figures = '<br>'.join(f'{key}: {value}' for key, value in result['Metrics'].items())
        weights = model['Weights'].removesuffix('/')
        if '://' in weights and ' ' not in weights:
            weights = f'[download]({weights})'
        rows.append(f'| `{model["Name"]}` | {result["Dataset"]} | {figures} | {weights} |')
    return '\n'.join(rows)


# ---- Docstrings --------------------------------------------------------------------------------


class Roles(griffe.Extension):
    """Docstrings as Markdown: ``:func:`~a.b.name` `` is the name alone, ``::`` a colon."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring before it is parsed."""
        if obj.docstring:
            text = re.sub(r':\w+:`(?:~[\w.]*?(\w+)|([\w.]+))`', lambda m: f'`{m[1] or m[2]}`',
                          obj.docstring.value)
            obj.docstring.value = re.sub('::$', ':', text, flags=re.M)
