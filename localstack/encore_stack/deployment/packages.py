"""What functions and layers are deployed from: archives named by their content's hash, or folders to reload from."""

import hashlib
import io
import shutil
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encore_stack.deployment.common import Say, in_parallel
from encore_stack.deployment.target import Target
from encore_stack.deployment.template import Layer, Template

BUCKET = "encore-artifacts"
HOT_RELOAD_BUCKET = "hot-reload"
"""There is no such bucket: LocalStack takes the key for a folder and runs what lies there at each call."""

_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the same content is the same archive
_LEFT_OUT = ("__pycache__", ".pytest_cache", ".mypy_cache", ".DS_Store")


@dataclass(frozen=True)
class Package:
    """Where LocalStack finds the code; `content` is the archive to put there, None for a folder."""

    bucket: str
    key: str
    content: bytes | None = None

    @classmethod
    def of_archive(cls, content: bytes) -> "Package":
        return cls(BUCKET, f"{hashlib.sha256(content).hexdigest()}.zip", content)

    @classmethod
    def of_folder(cls, folder: Path) -> "Package":
        return cls(HOT_RELOAD_BUCKET, str(folder))


def make_packages(template: Template, target: Target, say: Say) -> dict[str, Package]:
    """Logical id → package, for every function and layer: folders where `target.hot_dir` says so, else archives.

    The third-party packages are an archive in any case: nobody edits them, and they are many files to look at.
    """
    hot = target.hot_dir is not None
    packages = {
        each.logical_id: Package.of_folder(each.code_dir) if hot else _zip(_files(each.code_dir))
        for each in template.functions
    }
    for layer in template.layers:
        packages[layer.logical_id] = _layer_package(layer, target, say)
    return packages


def _layer_package(layer: Layer, target: Target, say: Say) -> Package:
    if layer.build_method == "makefile":
        built = build_runtime_layer(layer.content_dir, target.tools_dir, target.uv, say)
        archive = built.with_suffix(".zip")
        if not archive.is_file():
            partial = archive.with_suffix(".part")
            partial.write_bytes(_zip(_files(built)).content or b"")
            partial.rename(archive)
        return Package.of_archive(archive.read_bytes())
    if target.hot_dir is not None:
        return Package.of_folder(_linked_layer(layer, target.hot_dir))
    return _zip((Path("python") / name, file) for name, file in _files(layer.content_dir))


def _linked_layer(layer: Layer, hot_dir: Path) -> Path:
    """A folder that looks like the unzipped layer: its `python` is a link to where people edit it."""
    folder = hot_dir / layer.logical_id
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "python"
    if not link.is_symlink() or link.readlink() != layer.content_dir:
        link.unlink(missing_ok=True)
        link.symlink_to(layer.content_dir, target_is_directory=True)
    return folder


def build_runtime_layer(layer_dir: Path, tools_dir: Path, uv: str = "uv", say: Say = print) -> Path:
    """The functions' third-party packages as a layer folder, built once for each content of the lock.

    Returns `<tools>/runtime-layer/<hash>`, which has `python/` in it. The lock is complete, so nothing is resolved.
    """
    lock = layer_dir / "requirements.lock"
    folder = tools_dir / "runtime-layer" / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    if folder.is_dir():
        return folder
    say("building the runtime layer (once for each lock)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.part")
    command = [uv, "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += ["--python", sys.executable, "--python-version", "3.13", "--target", str(partial / "python")]
    try:
        subprocess.run([*command, "--requirement", str(lock)], check=True)
        shutil.rmtree(partial / "python" / "bin", ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _files(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Relative and real path of each file, in a fixed order."""
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if file.is_file() and not any(part in _LEFT_OUT for part in name.parts) and file.suffix != ".pyc":
            yield name, file


def _zip(files: Iterable[tuple[Path, Path]]) -> Package:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, file in files:
            entry = zipfile.ZipInfo(name.as_posix(), _ZIP_DATE)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, file.read_bytes())
    return Package.of_archive(buffer.getvalue())


def upload(s3: Any, packages: Iterable[Package]) -> None:
    """Puts into the bucket what is not there yet."""
    s3.create_bucket(Bucket=BUCKET)
    there = {each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])}
    missing = {each.key: each.content for each in packages if each.content is not None and each.key not in there}
    in_parallel(lambda item: s3.put_object(Bucket=BUCKET, Key=item[0], Body=item[1]), missing.items())
