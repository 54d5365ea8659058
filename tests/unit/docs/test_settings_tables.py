"""The READMEs' tables of variables say what the settings classes do: names, defaults, and what is allowed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from gateway import settings as gateway_settings
from llm_model import settings as model_settings
from llm_model.engines import vllm_options
from tests.unit.docs.markdown import CHINESE, ENGLISH, ROOT, code_spans, fences, prose, table, tables
from tests.unit.docs.readers import READ_BY, READERS, changes, refuses

# Defaults that are worked out of something else, so that no empty field stands for them; the tables tell them in words.
DERIVED = {
    *("MODEL_DIR", "MODEL_REVISION", "SERVED_MODEL_NAME", "SYSTEM_PROMPT", "WARMUP_NUM_SAMPLES_CAP"),
    *("SPEC_DRAFT_MODEL_DIR", "SPEC_DRAFT_MODEL_REVISION"),
}
# Read by libraries; the tables are about our own.
OF_LIBRARIES = {
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "VLLM_PLUGINS", "VLLM_CPU_KVCACHE_SPACE"),
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY",
    *("VLLM_CPU_OMP_THREADS_BIND", "VLLM_ENABLE_V1_MULTIPROCESSING"),
    "VLLM_LOGGING_CONFIG_PATH",
    *("MODELSCOPE_ENDPOINT", "HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    *("OTEL_SERVICE_NAME", "OTEL_TRACES_SAMPLER", "OTEL_EXPORTER_OTLP_HEADERS"),
}

# What a cell of "Allowed" may say besides choices and ranges: a value that is accepted, and one that is refused, if
# any is.
IN_WORDS: dict[str, tuple[str, str | None]] = {
    "text": ("something", None),
    "a folder": ("/some/folder", None),
    "a file": ("/some/file", None),
    "an IP address": ("192.0.2.1", "localhost"),
    "an http or https URL": ("http://collector:4318", "collector:4318"),
    "a JSON object": ('{"a": 1}', "[1]"),
    "a JSON object of names and folders": ('{"a": "/some/folder"}', '{"a": 1}'),
    "a whole number or a JSON object": ("3", "[1]"),
    "words separated by commas": ("one, two", None),
    "texts separated by commas": ("one, two", None),
    "host:port, several separated by commas": ("one:1,two:2", "one"),
    "an address that begins with `http://` or `https://`": ("http://gateway.example:8000/", "gateway.example:8000"),
    "as for the model": ("owner/name", "name"),
}


@dataclass(frozen=True)
class Variable:
    """One row of the tables."""

    name: str
    default: str
    allowed: str

    @property
    def literal_default(self) -> str | None:
        """The default as it would be written into the environment; ``None`` where the cell has words or a dash."""
        match = re.fullmatch(r"`([^`]+)`", self.default)
        return match[1] if match else None

    @property
    def choices(self) -> list[str]:
        return code_spans(self.allowed)

    def samples(self) -> tuple[list[str], list[str]]:
        """Values that the cell "Allowed" says are accepted, and such that are refused."""
        if self.allowed in IN_WORDS:
            accepted, refused = IN_WORDS[self.allowed]
            return [accepted], [refused] if refused else []
        bounds = _bounds(self.allowed)
        assert self.choices or bounds, f"{self.name}: what does {self.allowed!r} mean?"
        accepted_numbers, refused_numbers = bounds or ([], [])
        return self.choices + accepted_numbers, ["no-such-value", *refused_numbers]


def documented(text: str, header: str) -> list[Variable]:
    rows = [row for one in tables(text) if one.header[0] == header for row in one.rows]
    return [Variable(row[0].strip("`"), row[1], row[3]) for row in rows]


ENGLISH_TEXT = ENGLISH.read_text(encoding="utf-8")
CHINESE_TEXT = CHINESE.read_text(encoding="utf-8")
VARIABLES = documented(ENGLISH_TEXT, "Variable")
by_variable = pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.name)


@pytest.fixture(autouse=True)
def in_project_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative defaults are documented as seen from the project's folder."""
    monkeypatch.chdir(ROOT)


def test_every_variable_that_is_read_is_documented_and_no_other() -> None:
    names = [variable.name for variable in VARIABLES]
    assert sorted(names) == sorted(READ_BY)


@by_variable
def test_a_default_is_the_value_of_an_empty_environment(variable: Variable) -> None:
    literal = variable.literal_default
    for process in READ_BY[variable.name]:
        without = READERS[process]({})
        if literal is not None:
            assert READERS[process]({variable.name: literal}) == without, process
        elif variable.name not in DERIVED:
            for sample in variable.samples()[0]:
                values = list(differing(without, READERS[process]({variable.name: sample})))
                assert all(value in (None, (), "") for value in values), f"{process} has the default {values}"


@by_variable
def test_what_is_said_to_be_allowed_is_accepted_and_the_rest_refused(variable: Variable) -> None:
    accepted, refused = variable.samples()
    for value in accepted:
        assert not refused_by(variable, value), value
    for value in refused:
        assert refused_by(variable, value), value


@by_variable
def test_a_variable_makes_a_difference(variable: Variable) -> None:
    processes = READ_BY[variable.name]
    assert any(changes(process, variable.name, value) for process in processes for value in variable.samples()[0])


def test_defaults_told_in_words_have_the_numbers_of_the_code() -> None:
    told = {variable.name: numbers(variable.default) for variable in VARIABLES}
    assert told["MAX_MODEL_LEN"] == [str(model_settings.ModelSettings("", "").max_model_len_cap)]
    for name, defaults in (
        ("VLLM_MAX_NUM_SEQS", vllm_options._MAX_NUM_SEQS),
        ("VLLM_MAX_NUM_BATCHED_TOKENS", vllm_options._MAX_NUM_BATCHED_TOKENS),
    ):
        assert told[name] == [str(defaults["gpu"]), str(defaults["cpu"])]


@pytest.mark.parametrize("text", [ENGLISH_TEXT, CHINESE_TEXT], ids=["English", "Chinese"])
def test_the_default_system_prompt_is_quoted(text: str) -> None:
    quoted = [fence.code.strip() for fence in fences(text) if fence.language == "text"]
    assert gateway_settings.DEFAULT_SYSTEM_PROMPT in quoted
    assert model_settings.DEFAULT_SYSTEM_PROMPT in quoted


def test_former_variables_are_not_read() -> None:
    assert former_names()
    assert not former_names() & set(READ_BY)


@pytest.mark.parametrize("text", [ENGLISH_TEXT, CHINESE_TEXT], ids=["English", "Chinese"])
def test_the_texts_name_no_unknown_variable(text: str) -> None:
    named = {match for span in code_spans(prose(text)) for match in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", span)}
    assert named <= set(READ_BY) | former_names() | OF_LIBRARIES


def test_the_chinese_tables_say_the_same() -> None:
    chinese = documented(CHINESE_TEXT, "变量")
    assert [variable.name for variable in chinese] == [variable.name for variable in VARIABLES]
    for ours, theirs in zip(VARIABLES, chinese, strict=True):
        assert ours.literal_default == theirs.literal_default, ours.name
        assert (ours.default == "–") == (theirs.default == "–"), ours.name
        assert essence(ours.default) == essence(theirs.default), ours.name
        assert essence(ours.allowed) == essence(theirs.allowed), ours.name
    assert table(CHINESE_TEXT, "以前的变量").column("以前的变量") == [
        cell.replace("`, `", "`、`") for cell in table(ENGLISH_TEXT, "Former variable").column("Former variable")
    ]


def refused_by(variable: Variable, value: str) -> list[str]:
    """The processes that refuse the value."""
    return [process for process in sorted(READ_BY[variable.name]) if refuses(process, {variable.name: value})]


def former_names() -> set[str]:
    cells = table(ENGLISH_TEXT, "Former variable").column("Former variable")
    return {name for cell in cells for name in code_spans(cell)}


def essence(cell: str) -> list[str]:
    """What no translation changes."""
    return sorted([*code_spans(cell), *numbers(cell)])


def numbers(cell: str) -> list[str]:
    return re.findall(r"(?<![\w.-])-?\d+(?:\.\d+)?", re.sub(r"`[^`]*`", "", cell))


def differing(before: Any, after: Any) -> Iterator[Any]:
    """The values in ``before`` that are others in ``after``; dataclasses are looked into."""
    if dataclasses.is_dataclass(before) and type(before) is type(after):
        for field in dataclasses.fields(before):
            yield from differing(getattr(before, field.name), getattr(after, field.name))
    elif before != after:
        yield before


def _bounds(cell: str) -> tuple[list[str], list[str]] | None:
    """Numbers that a cell like ``1 to 64`` accepts and refuses."""
    words = re.sub(r"`[^`]*`", "", cell)
    if match := re.search(r"above (-?\d+), up to (\d+)", words):
        low, high = int(match[1]), int(match[2])
        return [str((low + high) / 2), str(high)], [str(low), str(high + 1)]
    if match := re.search(r"at least (-?\d+)", words):
        low = int(match[1])
        return [str(low), str(low + 1)], [str(low - 1)]
    if match := re.search(r"(-?\d+) to (-?\d+)", words):
        low, high = int(match[1]), int(match[2])
        return [str(low), str(high)], [str(low - 1), str(high + 1)]
    return None
