"""Budgets: the kind of a question by its keywords, first match wins."""

from __future__ import annotations

import pytest

from gateway.policy.budget import BudgetPolicy, Kind
from gateway.settings import BudgetSettings

DEFAULT = BudgetPolicy(BudgetSettings())


@pytest.mark.parametrize(
    "question,kind,max_tokens",
    [
        ("什么是数据并行性？", "short", 64),
        ("", "short", 64),
        ("写出核函数的启动：kernel<<<grid, block>>>", "hard_code", 192),
        ("解释 Global Void 声明", "hard_code", 192),
        ("#INCLUDE 有什么用？", "hard_code", 192),
        ("卷积算子如何优化？", "long_answer", 192),
        ("What is SpMV?", "long_answer", 192),
        ("解释 Tensor Cores", "long_answer", 192),
        ("ConvNets 与 im2col、GEMM", "long_answer", 192),
        ("Triton 和 TileLang 的区别", "long_answer", 192),
        ("给出伪代码", "code", 96),
        ("写一段代码片段", "code", 96),
        ("import numpy 之后做什么", "code", 96),
        ("def f(x) 是什么", "code", 96),
        ("important 与 important的 defined 区别", "short", 64),
        ("#include 算子代码", "hard_code", 192),
        ("算子的代码", "long_answer", 192),
    ],
)
def test_the_first_kind_that_matches_wins(question: str, kind: Kind, max_tokens: int) -> None:
    assert DEFAULT.kind(question) == kind
    assert DEFAULT.plan(question).max_tokens == max_tokens


def test_own_keywords_are_added_whatever_their_case() -> None:
    policy = BudgetPolicy(
        BudgetSettings(code_keywords=("Write",), hard_code_keywords=("__GLOBAL__",), long_answer_keywords=("Stencil",))
    )
    assert policy.kind("please write it") == "code"
    assert policy.kind("__global__ function") == "hard_code"
    assert policy.kind("STENCIL 计算") == "long_answer"
    assert policy.kind("给出代码") == "code"
    assert policy.kind("#include") == "hard_code"
    assert policy.kind("算子") == "long_answer"


def test_minimum_hits_count_different_keywords() -> None:
    policy = BudgetPolicy(
        BudgetSettings(hard_code_min_hits=2, long_answer_min_hits=2, hard_code_keywords=("#INCLUDE",))
    )
    assert policy.kind("#include #include") == "code"
    assert policy.kind("#include 与 global void") == "hard_code"
    assert policy.kind("gemm") == "short"
    assert policy.kind("gemm 与 im2col") == "long_answer"


def test_the_built_in_long_answer_keywords_can_be_left_out() -> None:
    policy = BudgetPolicy(BudgetSettings(long_answer_enable_default=False, long_answer_keywords=("卷积",)))
    assert policy.kind("算子") == "short"
    assert policy.kind("卷积") == "long_answer"


def test_without_routing_every_question_has_the_short_budget() -> None:
    policy = BudgetPolicy(BudgetSettings(disable_token_routing=True, max_new_tokens=50))
    for question in ("#include", "算子", "代码", "什么是线程？"):
        plan = policy.plan(question)
        assert (plan.max_tokens, plan.is_short) == (50, True)
    assert policy.plan("给出代码").asks_for_code


@pytest.mark.parametrize("wish", [1, 64, 65, 1000])
def test_a_wish_goes_before_the_budget_of_any_kind(wish: int) -> None:
    for question in ("什么是线程？", "代码", "算子", "#include"):
        assert DEFAULT.plan(question, wish).max_tokens == wish


def test_the_rules_for_short_answers_follow_the_budget() -> None:
    assert DEFAULT.plan("什么是线程？").is_short
    assert DEFAULT.plan("什么是线程？", 64).is_short
    assert not DEFAULT.plan("什么是线程？", 65).is_short
    assert not DEFAULT.plan("代码", 10).is_short
    assert not DEFAULT.plan("算子").is_short


def test_asking_for_code_is_seen_beside_other_keywords() -> None:
    assert DEFAULT.plan("算子的代码").asks_for_code
    assert DEFAULT.plan("kernel<<<").asks_for_code
    assert not DEFAULT.plan("算子").asks_for_code
