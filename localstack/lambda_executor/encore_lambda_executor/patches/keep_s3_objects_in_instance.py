"""LocalStack keeps S3 objects in one fixed folder of /tmp, which two instances would share."""

import tempfile
from pathlib import Path


def apply() -> None:
    from localstack.services.s3 import provider

    provider.DEFAULT_S3_TMP_DIR = str(Path(tempfile.gettempdir(), "s3"))
