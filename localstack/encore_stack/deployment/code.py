"""What the functions are made of, as one hash."""

from hashlib import sha256
from pathlib import Path

_FOLDERS = ("functions", "layers/booking/booking", "localstack/fast_gateway")
_SUFFIXES = {".py", ".sql", ".lua"}


def code_digest(project_dir: Path) -> str:
    """A hash of the template and of every file that a function or the fast gateway runs."""
    files = [project_dir / "template.yaml"]
    for folder in _FOLDERS:
        files += sorted(path for path in (project_dir / folder).rglob("*") if path.suffix in _SUFFIXES)
    digest = sha256()
    for path in files:
        digest.update(f"{path.relative_to(project_dir)}\n".encode() + path.read_bytes())
    return digest.hexdigest()
