"""The stub captioner as a module that programs can run and tests can import."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
