"""``tools/app.py``: started on this machine, asked over HTTP once, stopped."""
import html
import json
import re
import sys

import pytest
import requests

from tests.tools.show_pages import read_page, write_files


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp('show'))


@pytest.mark.usefixtures('loading')
def test_the_app_answers(root, files, monkeypatch, tmp_path):
    gradio = pytest.importorskip('gradio', reason='pip install "mmsparse[app]"')
    monkeypatch.syspath_prepend(str(root / 'tools'))
    for module in ('app', 'show', 'command_line'):
        monkeypatch.delitem(sys.modules, module, raising=False)
    import app

    broken = tmp_path / 'broken.png'
    broken.write_bytes(b'no image')
    launch, answers = gradio.Blocks.launch, []

    def launch_and_ask(blocks, **settings):
        """As the tool starts it, but without waiting for Ctrl-C."""
        assert settings['server_name'] == '127.0.0.1' and not settings['share']
        _, address, _ = launch(blocks, prevent_thread_lock=True, quiet=True, **settings)
        try:
            answers.append(ask(address, files / 'a.png', files / 'labels' / 'a.png'))
            answers.append(ask(address, broken, None))
        finally:
            blocks.close()

    monkeypatch.setattr(gradio.Blocks, 'launch', launch_and_ask)
    monkeypatch.setattr(sys, 'argv', ['app.py', str(files / 'refine.py'), str(files / 'refine.pth'),
                                      '--port', '0', '--device', 'cpu'])
    app.main()
    (state, (frame, file)), (failed, error) = answers
    assert state == 'complete' and file['orig_name'] == 'a.html'
    page = tmp_path / 'a.html'
    page.write_text(html.unescape(re.search('srcdoc="(.*?)"', frame, re.S)[1]), encoding='utf-8')
    data = read_page(page)
    assert data['title'] == 'a.png' and data['planes'].keys() == {
        'before', 'result', 'label', 'score', 'selected'}
    assert failed == 'error' and 'broken.png is no image' in str(error)


def ask(address, picture, label):
    """Upload a picture, and a label map if there is one; how the call ended, and with what."""
    paths = [path and dict(path=requests.post(f'{address}gradio_api/upload', files=dict(
        files=(path.name, path.read_bytes())), timeout=60).json()[0], orig_name=path.name,
        meta={'_type': 'gradio.FileData'}) for path in (picture, label)]
    event = requests.post(f'{address}gradio_api/call/show', json=dict(data=paths),
                          timeout=60).json()['event_id']
    text = requests.get(f'{address}gradio_api/call/show/{event}', timeout=300).text
    state, content = re.search(r'event: (complete|error)\ndata: (.*)', text).groups()
    return state, json.loads(content)
