"""``docs/first-steps.ipynb`` runs from top to bottom, and says what it promises."""
import re
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / 'docs' / 'first-steps.ipynb'
nbformat = pytest.importorskip('nbformat', reason='pip install nbclient')


@pytest.fixture(scope='module')
def notebook():
    found = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(found)
    return found


def test_outputs_are_not_committed(notebook):
    assert not any(cell.get('outputs') or cell.get('execution_count') for cell in notebook.cells)


def test_links_lead_somewhere(notebook):
    text = '\n'.join(cell.source for cell in notebook.cells if cell.cell_type == 'markdown')
    links = re.findall(r'\]\(([^)#]+)', text)
    assert len(links) > 5 and not [link for link in links if not (NOTEBOOK.parent / link).exists()]
    for name in re.findall(r'mim run mmsparse (\w+)', text):
        assert (NOTEBOOK.parents[1] / 'tools' / f'{name}.py').exists()


@pytest.mark.slow
def test_it_runs(notebook, tmp_path):
    """In this very interpreter, in an empty folder."""
    nbclient = pytest.importorskip('nbclient', reason='pip install nbclient')
    kernels = pytest.importorskip('jupyter_client.kernelspec')
    pytest.importorskip('ipykernel', reason='pip install ipykernel')

    class ThisPython(kernels.KernelSpecManager):
        def get_kernel_spec(self, kernel_name):
            return kernels.KernelSpec(argv=[
                sys.executable, '-m', 'ipykernel_launcher', '-f', '{connection_file}'])

    client = nbclient.NotebookClient(
        notebook, timeout=900, resources=dict(metadata=dict(path=str(tmp_path))))
    client.create_kernel_manager().kernel_spec_manager = ThisPython()
    client.execute()
    told = [output.text for cell in notebook.cells if cell.cell_type == 'code'
            for output in cell.outputs if output.get('name') == 'stdout']
    pictures = sum('image/png' in output.get('data', {}) for cell in notebook.cells
                   for output in cell.get('outputs', []))
    assert pictures == 4
    right, = re.findall(r'([\d.]+)% of the pixels have their true class', ''.join(told))
    assert float(right) > 70
    recall, density = map(float, re.findall(r'finds ([\d.]+)% of them and refines ([\d.]+)%',
                                            ''.join(told))[0])
    assert 80 <= recall < 81 and 5 < density < 60
    assert float(re.findall(r'([\d.]+)% of the wrong ones', ''.join(told))[0]) > density
