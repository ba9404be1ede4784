"""The alert rules are well formed, and name metrics and labels that there are."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from vipcloud.telemetry.families import FAMILIES

RULES = Path(__file__).parents[2] / "docs" / "alerts.yml"
SELECTED = re.compile(r"\b((?:vipcloud|gen_ai_(?:server|client))_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
SHOWN = {family.shown: family for family in FAMILIES.values()} | {
    f"{family.name}{end}": family
    for family in FAMILIES.values()
    if family.sort == "histogram"
    for end in ("_bucket", "_count", "_sum")
}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def faults(expression: str) -> list[str]:
    """What an expression names that there is not; a word if it names nothing, or does not close what it opens."""
    found = SELECTED.findall(expression)
    wrong = [] if found else ["names no metric"]
    wrong += [name for name, _ in found if name not in SHOWN]
    for name, matchers in found:
        if name in SHOWN:
            wrong += [f"{name}{{{one}}}" for one in MATCHER.findall(matchers) if one not in SHOWN[name].labels]
    for opening, closing in ("()", "[]", "{}"):
        if expression.count(opening) != expression.count(closing):
            wrong.append(f"unbalanced {opening}{closing}")
    return wrong


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_is_whole_and_asks_for_what_there_is(rule: dict[str, Any]) -> None:
    assert faults(rule["expr"]) == []
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"].keys() == {"summary", "action"}
    assert re.fullmatch(r"(\d+[smh])?", rule.get("for", ""))
    labels = SHOWN[SELECTED.findall(rule["expr"])[0][0]].labels
    told = re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values()))
    assert [label for label in told if label not in labels] == []


def test_no_two_rules_have_one_name() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) >= 10


@pytest.mark.parametrize(
    "expression",
    ["vipcloud_nothing > 0", "up == 0", 'vipcloud_shed_total{model="x"} > 0', "rate(vipcloud_shed_total[5m] > 0"],
)
def test_the_rule_sees_a_wrong_expression(expression: str) -> None:
    assert faults(expression) != []
