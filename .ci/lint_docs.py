"""Check the Markdown files: links, anchors and pictures that exist, fences with a language.

Run by ``make lint`` and pre-commit; prints one line for each problem and exits with 1.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {'.git', 'work_dirs', 'node_modules'}


def markdown_files() -> list[Path]:
    """Every .md of the repository, environments and results left out."""
    return [path for path in sorted(ROOT.rglob('*.md'))
            if not any(part in SKIPPED or part.startswith(('.venv', '.pytest'))
                       for part in path.relative_to(ROOT).parts)]


def anchors(text: str) -> set[str]:
    """Anchors of the headings, made as GitHub makes them."""
    headings = re.findall(r'^#+ +(.+?) *$', text, re.M)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def problems(path: Path) -> Iterator[str]:
    """What is wrong with one file, each with its line."""
    fenced = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        place = f'{path.relative_to(ROOT)}:{number}'
        if line.lstrip().startswith('```'):
            if not fenced and line.strip() == '```':
                yield f'{place}: a code block without a language'
            fenced = not fenced
            continue
        if line != line.rstrip():
            yield f'{place}: spaces at the end of the line'
        if fenced:
            continue
        for target in re.findall(r'\]\(([^)\s]+)\)', line):
            if '://' in target or target.startswith('mailto:'):
                continue
            name, _, anchor = target.partition('#')
            linked = path.parent / name if name else path
            if not linked.exists():
                yield f'{place}: {target} does not exist'
            elif anchor and linked.suffix == '.md' and anchor not in anchors(linked.read_text()):
                yield f'{place}: {target} has no such heading'
    if fenced:
        yield f'{path.relative_to(ROOT)}: a code block that never ends'


def main() -> int:
    """Check all files."""
    found = [problem for path in markdown_files() for problem in problems(path)]
    print(*found, sep='\n', end='\n' if found else '')
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
