"""Serve a model on this machine: put in a picture, look at the page that show.py writes of it.

Needs gradio: pip install "mmsparse[app]". Pictures stay on this machine; only it can open the app,
unless --host says otherwise. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import html
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from command_line import ZOO, add_backend_options, check_config, find_checkpoint, stop

if TYPE_CHECKING:  # imported late below: `mim run` asks for -h first, which has to be fast
    import gradio
    from mmseg.models.segmentors import BaseSegmentor

# Gradio's own theme fetches its fonts from a server.
THEME = dict(primary_hue='blue', font=['system-ui', 'sans-serif'],
             font_mono=['ui-monospace', 'monospace'])


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='of a segmentor: a file, or mmsparse://NAME of the zoo')
    parser.add_argument('checkpoint', nargs='?',
                        help=f'its checkpoint; left out where the config is {ZOO}NAME')
    parser.add_argument('--host', default='127.0.0.1',
                        help='where to listen (default: 127.0.0.1, this machine alone)')
    parser.add_argument('--port', type=int,
                        help='0 takes any that is free (default: the first one from 7860 on)')
    parser.add_argument('--device', help="such as 'cuda:0' or 'cpu' (default: a GPU if there is "
                                         'one)')
    add_backend_options(parser)
    return parser.parse_args()


def build_app(model: BaseSegmentor, facts: dict[str, str], folder: Path) -> gradio.Blocks:
    """The app of a model of ``show.segmentor``; its one function is also served as ``/show``.

    Args:
        facts: what the page is to say of model and checkpoint.
        folder: for the pages; Gradio keeps copies of what it serves.
    """
    import gradio as gr
    from show import class_numbers, make_page

    from mmsparse.engine.label_files import read_label
    from mmsparse.pictures import read_image

    def show(picture: str | None, label: str | None) -> tuple[str, str]:
        """The page in a frame, and the file of it."""
        if picture is None:
            raise gr.Error('Choose a picture first.')
        try:
            image = read_image(picture)
            truth = None if label is None else read_label(
                model.cfg, Path(label), image.shape[:2], *class_numbers(model))
            page = make_page(model, image, truth, title=Path(picture).name, facts=facts)
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            raise gr.Error(str(error)) from error
        file = folder / f'{Path(picture).stem}.html'
        file.write_text(page, encoding='utf-8')
        return (f'<iframe title="The result" sandbox="allow-scripts" srcdoc="{html.escape(page)}" '
                'style="width: 100%; height: calc(100vh - 220px); min-height: 600px; border: 0">'
                '</iframe>',
                str(file))

    with gr.Blocks(title='mmsparse', analytics_enabled=False, fill_width=True,
                   delete_cache=(3600, 3600)) as app:
        with gr.Row():
            picture, label = (
                gr.File(label=text, file_types=['image'], height=140)
                for text in ('Picture', 'Label map, if there is one'))
            with gr.Column(scale=0, min_width=220):
                button = gr.Button('Show', variant='primary')
                download = gr.DownloadButton('Save the page')
        frame = gr.HTML(f'<p>Choose a picture, and {facts["model"]} labels it.</p>')
        button.click(show, [picture, label], [frame, download], api_name='show')
    return app


def free_port(host: str) -> int:
    """One that nothing listens on."""
    with socket.create_server((host, 0)) as server:
        return server.getsockname()[1]


def main() -> None:
    """Serve until Ctrl-C."""
    args = parse_args()
    try:
        import gradio as gr
    except ImportError:
        stop('this needs gradio: pip install "mmsparse[app]"')
    check_config(args.config)
    args.checkpoint = find_checkpoint(args.config, args.checkpoint)
    from show import facts_of, segmentor

    port = free_port(args.host) if args.port == 0 else args.port
    with tempfile.TemporaryDirectory(prefix='mmsparse-') as folder:
        build_app(segmentor(args), facts_of(args), Path(folder)).launch(
            server_name=args.host, server_port=port, share=False, show_error=True,
            theme=gr.themes.Default(**THEME), footer_links=['api'])


if __name__ == '__main__':
    main()
