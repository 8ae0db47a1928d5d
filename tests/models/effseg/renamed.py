"""The authors' names of the mask head's weights and ours."""
import re

# the authors' names and ours
RENAMED = [
    (r'qry\.0', 'fusion.project'),
    (r'fuse_qry\.(\d)', r'fusion.blend.\1'),
    (r'roi_ins\.(\d)\.conv', r'convs.\1.conv'),
    (r'seg\.0\.(\d)', r'segmentation.\1'),
    (r'ref\.0\.(\d)', r'refinement.\1'),
    (r'seg\.(\d)\.(\d)', r'stages.\1.segmentation.\2'),
    (r'ref\.(\d)\.(\d)', r'stages.\1.refinement.\2'),
    (r'fuse_td\.(\d)\.0', r'stages.\1.child_first'),
    (r'fuse_td\.(\d)\.3', r'stages.\1.child_second'),
    (r'fuse_key\.(\d)\.(\d)', r'stages.\1.fuse.\2'),
    (r'trans\.(\d)\.0', r'stages.\1.transition'),
    (r'proc\.(\d)\.0', r'stages.\1.processing.first'),
    (r'proc\.(\d)\.2\.sub_modules\.(\d)\.0', r'stages.\1.processing.convs.\2'),
    (r'proc\.(\d)\.3', r'stages.\1.processing.last.0'),
    (r'proc\.(\d)\.5', r'stages.\1.processing.last.2'),
]


def renamed(key: str) -> str:
    """Our name of one of the authors' entries."""
    for pattern, name in RENAMED:
        if found := re.fullmatch(rf'{pattern}\.(weight|bias)', key):
            if key.startswith(('seg', 'ref')) and 'stages' in name:  # theirs count the dense stage
                name = name.replace(r'\1', str(int(found[1]) - 1))
            return f'{found.expand(name)}.{found[found.re.groups]}'
    raise KeyError(key)
