"""What every form of output is: a class that turns predictions into the bytes of files."""
from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from mmengine.model import BaseModel

    from mmsparse.engine.prediction import Prediction


class OutputFormat:
    """How predictions look in files: a file for each picture, or one document for all of them.

    For a picture ``street/1.jpg``, ``encode`` gives the content of ``FORMAT/street/1`` + ``suffix``
    in the output folder. Where ``document`` names a file, ``encode`` gives the picture's part of it
    instead. Parts are kept in a hidden folder; at the end ``join`` makes the document of all of
    them, also of those that an earlier run or another process has written. So a part must not
    depend on other pictures: running numbers (ids) are given in ``join``.

    Where files lie, that they are whole or not there, what is skipped, and which process does what
    is not a format's affair.

    Args:
        model: of :func:`mmsparse.apis.init_model`, with the names and colors of its classes.

    Attributes:
        suffix: of a picture's file, or of its part, with the dot.
        document: name of the one file for all pictures, in the output folder; ``None``: each
            picture has its own.
        classes: names of the classes.
        palette: their colors, RGB.

    Raises:
        ValueError: the model gives nothing of that form. It ends the run: before any picture is
            read from ``__init__``, at the first one as
            :class:`~mmsparse.engine.prediction.WrongModelError` from ``encode``. Any other
            ``ValueError`` of ``encode`` is about this picture: it is reported, the others go on.
    """

    suffix: ClassVar[str]
    document: ClassVar[str | None] = None

    def __init__(self, model: BaseModel) -> None:
        from mmdet.visualization.palette import get_palette

        self.classes = tuple((model.dataset_meta or {}).get('classes') or ())
        if not self.classes:
            raise ValueError('neither the checkpoint nor the test set of the config names the '
                             'classes')
        palette: Any = model.dataset_meta.get('palette')
        if not isinstance(palette, (list, tuple)) or len(palette) != len(self.classes):
            palette = get_palette('random', len(self.classes))  # as mmseg and mmdet do
        self.palette = [tuple(int(channel) for channel in color) for color in palette]

    def encode(self, prediction: Prediction) -> bytes:
        """The file of a picture, or its part of the document."""
        raise NotImplementedError

    def join(self, parts: Iterable[bytes]) -> bytes:
        """The document.

        Args:
            parts: what ``encode`` gave for each picture, sorted by their names.
        """
        raise NotImplementedError(f'{type(self).__name__} has no document')
