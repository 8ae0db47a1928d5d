"""Check this machine for what is known to break; the same as ``python -m mmsparse.doctor``."""

import sys

from mmsparse.doctor import main

if __name__ == '__main__':
    sys.exit(main())
