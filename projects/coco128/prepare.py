r"""Eight images of COCO128 as a data set of its own.

    python projects/coco128/prepare.py --out work_dirs/coco128/instances.json

Reads `coco128` below MMSPARSE_DATA.
"""
from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

EVERY = 16


def main() -> None:
    """Write the annotations of the images that have objects."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True)
    args = parser.parse_args()
    folder = Path(os.environ.get('MMSPARSE_DATA', 'data')) / 'coco128' / 'annotations'
    coco = json.loads((folder / 'instances_train2017.json').read_text())
    used = {a['image_id'] for a in coco['annotations'] if not a['iscrowd']}
    coco['images'] = [image for image in sorted(coco['images'], key=lambda i: i['id'])
                      if image['id'] in used][::EVERY]
    kept = {image['id'] for image in coco['images']}
    coco['annotations'] = [a for a in coco['annotations'] if a['image_id'] in kept]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(coco))
    print(f'{len(kept)} images, {len(coco["annotations"])} objects')


if __name__ == '__main__':
    main()
