from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from runtime.__main__ import COMMANDS, main
from runtime.fatal_listener import FAILED_LOADS
from runtime.launcher import StopTimes
from runtime.settings import RuntimeSettings

CONF = Path(__file__).resolve().parents[3] / "supervisord.conf"


@pytest.fixture
def conf() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    parser.read(CONF)
    return parser


@pytest.mark.parametrize("arguments", [[], ["fly"], ["serve", "now"]])
def test_other_arguments_get_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "usage: python -m runtime" in capsys.readouterr().err


def test_supervisord_runs_commands_that_exist(conf: configparser.RawConfigParser) -> None:
    commands = [conf[section]["command"] for section in conf.sections() if "command" in conf[section]]
    assert len(commands) == 6
    for command in commands:
        _, module, name = command.rpartition("-m runtime ")
        assert module
        assert name in COMMANDS


def test_the_watchdog_stops_first_the_gateway_before_triton_and_mps_last(conf: configparser.RawConfigParser) -> None:
    order = [conf.getint(f"program:{name}", "priority") for name in ("watchdog", "gateway", "triton", "mps")]
    assert order == sorted(set(order), reverse=True)


@pytest.mark.parametrize("name,variable", [("webui", "SERVICE_WEBUI"), ("mps", "SERVICE_MPS")])
def test_what_is_off_by_default_is_started_by_its_variable(
    conf: configparser.RawConfigParser, name: str, variable: str
) -> None:
    assert conf[f"program:{name}"]["autostart"] == f"%(ENV_{variable})s"


def test_late_load_failures_are_counted_like_early_ones(conf: configparser.RawConfigParser) -> None:
    assert conf.getint("program:triton", "startretries") + 1 == FAILED_LOADS


def test_no_program_is_killed_within_its_grace() -> None:
    times = StopTimes.of(RuntimeSettings.from_env({"SHUTDOWN_GRACE_S": "7.5"}))
    assert times.gateway_s > 7.5
    assert times.triton_s > 7.5
    assert times.all_s > times.gateway_s + times.triton_s
