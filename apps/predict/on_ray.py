"""predict.py on many processes or machines: the door to `ray_run`, which needs packages that few have."""

import os
from collections.abc import Mapping
from typing import Any

from runtime.errors import InputError

NEEDED = ("ray", "pyarrow")
QUIET = {  # read by Ray when it is imported: nothing is sent anywhere, and faults are said once, by us
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
    "RAY_DEDUP_LOGS": "0",  # else what it held back comes at the end
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def predict_files(asked: Mapping[str, Any]) -> bool:
    """Like `score_files.predict_files`, with Ray; asked: settings of `ScaleSpec` by name.

    Raises InputError where nothing could start, and where Ray or its packages are missing.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        from apps.predict import ray_run
    except ImportError as fault:
        if fault.name is None or fault.name.partition(".")[0] not in NEEDED:
            raise
        raise InputError(f"--on ray needs {fault.name}: pip install -r requirements/ray.txt") from fault
    return ray_run.predict_files(asked)
