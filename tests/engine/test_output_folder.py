"""Files that are whole or not there, whatever ends the work; documents of all runs."""
import errno
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mmsparse.engine import output_folder
from mmsparse.engine.formats import OutputFormat
from mmsparse.engine.output_folder import OutputFolder
from mmsparse.engine.prediction import Prediction, WrongModelError
from mmsparse.engine.whole_files import whole_file


class Shape(OutputFormat):
    """Height and width as text."""

    suffix = '.txt'

    def encode(self, prediction):
        if prediction.name.stem == 'odd':
            raise ValueError('it is odd')
        if prediction.name.stem == 'foreign':
            raise WrongModelError('it is foreign')
        return '{} {}'.format(*prediction.size).encode()


class Names(Shape):
    """The names of all pictures, one document."""

    suffix = '.json'
    document = 'names.json'

    def encode(self, prediction):
        return prediction.name.name.encode()

    def join(self, parts):
        return json.dumps([part.decode() for part in parts]).encode()


MODEL = SimpleNamespace(dataset_meta=dict(classes=('a', 'b')))


def folder_of(path, force=False):
    return OutputFolder(path, dict(shape=Shape(MODEL), names=Names(MODEL)), force=force)


def prediction(name, size=(4, 5)):
    return Prediction(Path('x'), Path(name), np.zeros((*size, 3), np.uint8), None)


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file())


def test_names_and_folders_are_kept(tmp_path):
    folder = folder_of(tmp_path / 'out')
    for name in ('a/b/1.jpg', '2.v1.png'):
        folder.write(prediction(name))
    assert files(tmp_path / 'out') == ['.parts/names/2.v1.json', '.parts/names/a/b/1.json',
                                       'shape/2.v1.txt', 'shape/a/b/1.txt']
    assert folder.join() == [tmp_path / 'out/names.json']
    assert json.loads((tmp_path / 'out/names.json').read_text()) == ['2.v1.png', '1.jpg']


def test_what_is_there_stays_without_force(tmp_path):
    folder = folder_of(tmp_path)
    folder.write(prediction('1.jpg'))
    (tmp_path / 'shape/1.txt').unlink()
    assert folder.missing(Path('1.jpg')) == ['shape'] and folder.missing(Path('2.jpg')) == [
        'shape', 'names']
    (tmp_path / '.parts/names/1.json').write_text('mine')
    folder.write(prediction('1.jpg'))
    assert (tmp_path / '.parts/names/1.json').read_text() == 'mine'
    assert (tmp_path / 'shape/1.txt').read_text() == '4 5' and not folder.missing(Path('1.jpg'))
    forced = folder_of(tmp_path, force=True)
    assert forced.missing(Path('1.jpg')) == ['shape', 'names']
    forced.write(prediction('1.jpg', (6, 7)))
    assert (tmp_path / 'shape/1.txt').read_text() == '6 7'
    assert (tmp_path / '.parts/names/1.json').read_text() == '1.jpg'


def test_a_document_has_what_earlier_runs_have_written(tmp_path):
    for names in (('b.jpg', 'a/z.jpg'), ('a.jpg', 'c.jpg')):
        folder = folder_of(tmp_path)
        for name in names:
            folder.write(prediction(name))
        folder.join()
    found = json.loads((tmp_path / 'names.json').read_text())
    assert found == ['z.jpg', 'a.jpg', 'b.jpg', 'c.jpg']  # by path
    assert OutputFolder(tmp_path / 'none', dict(names=Names(MODEL))).join() == []


@pytest.mark.parametrize('error', [KeyboardInterrupt, ValueError])
def test_no_half_file(tmp_path, error):
    """Nothing new, and an old file as it was."""
    (tmp_path / 'old').write_text('old')
    for name in ('new', 'old'):
        with pytest.raises(error), whole_file(tmp_path / name) as path:
            path.write_text('half')
            assert (tmp_path / 'old').read_text() == 'old' and not (tmp_path / 'new').exists()
            raise error
    assert files(tmp_path) == ['old'] and (tmp_path / 'old').read_text() == 'old'


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    write = Path.write_bytes

    def full(path, content):
        write(path, content[:1])
        raise OSError(errno.ENOSPC, 'No space left on device')

    folder = folder_of(tmp_path)
    folder.write(prediction('1.jpg'))
    monkeypatch.setattr(Path, 'write_bytes', full)
    before = files(tmp_path)
    for call in (lambda: folder.write(prediction('2.jpg')), folder.join):
        with pytest.raises(OSError, match='No space left') as raised:
            call()
        assert raised.value.errno == errno.ENOSPC and str(tmp_path) in str(raised.value)
        assert files(tmp_path) == before


def test_a_refused_form_does_not_stop_the_other(tmp_path):
    folder = folder_of(tmp_path)
    with pytest.raises(ValueError, match='it is odd'):
        folder.write(prediction('odd.jpg'))
    assert files(tmp_path) == ['.parts/names/odd.json']
    with pytest.raises(WrongModelError, match='it is foreign'):
        folder.write(prediction('foreign.jpg'))
    assert files(tmp_path) == ['.parts/names/odd.json']


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    """It is refused before anything is labeled; a probe leaves nothing."""
    folder_of(tmp_path / 'new')
    assert files(tmp_path) == []
    (tmp_path / 'file').touch()
    for out in ('file', 'file/out'):
        with pytest.raises(OSError, match=out):
            folder_of(tmp_path / out)

    def read_only(dir):
        raise OSError(errno.EROFS, 'Read-only file system', str(dir))

    monkeypatch.setattr(output_folder, 'TemporaryFile', read_only)
    with pytest.raises(OSError, match='Read-only file system'):
        folder_of(tmp_path / 'new')
