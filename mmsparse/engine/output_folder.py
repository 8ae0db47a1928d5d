"""Where predictions are written: whole files in a folder, those that are there left alone."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

from .formats import OutputFormat
from .prediction import Prediction, WrongModelError
from .whole_files import write_whole

PARTS = '.parts'  # folder of the parts of documents, which later runs add to


class OutputFolder:
    """The files of predictions in all formats.

    Args:
        folder: made if it is not there.
        formats: by name.
        force: write over files that are there.

    Raises:
        OSError: nothing can be written there.
    """

    def __init__(self, folder: str | Path, formats: Mapping[str, OutputFormat], *,
                 force: bool = False) -> None:
        self.folder = Path(folder)
        self.formats = formats
        self.force = force
        self.folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=self.folder).close()

    def file(self, key: str, name: Path) -> Path:
        """Where a format has a picture's file, or its part of the document."""
        form = self.formats[key]
        folder = self.folder / (PARTS if form.document else '') / key
        return folder / name.with_suffix(form.suffix)

    def missing(self, name: Path) -> list[str]:
        """The formats that a picture is still to be written in."""
        return [key for key in self.formats if self.force or not self.file(key, name).is_file()]

    def write(self, prediction: Prediction) -> None:
        """Write a prediction in the formats that are missing.

        Raises:
            OSError: a file cannot be written.
            WrongModelError: a format is not for this model.
            ValueError: a format cannot hold this prediction; the other formats are written.
        """
        refused = []
        for key in self.missing(prediction.name):
            try:
                content = self.formats[key].encode(prediction)
            except WrongModelError:
                raise
            except ValueError as error:
                refused.append(error)
            else:
                write_whole(self.file(key, prediction.name), content)
        if refused:
            raise refused[0]

    def join(self) -> list[Path]:
        """Make the documents of all parts in the folder, this run's and others'.

        Returns:
            The documents; none of a format that has no part.

        Raises:
            OSError: one cannot be written.
        """
        documents = []
        for key, form in self.formats.items():
            folder = self.folder / PARTS / key
            parts = sorted(folder.rglob(f'*{form.suffix}'), key=lambda part: part.parts)
            if form.document and parts:
                document = self.folder / form.document
                write_whole(document, form.join(part.read_bytes() for part in parts))
                documents.append(document)
        return documents
