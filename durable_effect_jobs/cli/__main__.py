"""``python -m durable_effect_jobs.cli``: the same as ``durable-effect``."""

import sys

from durable_effect_jobs.cli import main

sys.exit(main())
