import sys

from pylyap.cli import main

sys.exit(main())
