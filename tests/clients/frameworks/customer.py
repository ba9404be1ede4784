"""What the programs of this folder share. They are run by test_frameworks.py, which passes where the gateway is."""

import json
import os
import urllib.request

import pytest
from pydantic import BaseModel, Field

BASE_URL, API_KEY = os.environ["BASE_URL"], os.environ["API_KEY"]
GREETING = "Hello! How can I help you today?"
PARIS = "What is the weather in Paris?"
FORECAST = "21 °C and sunny"
JANE = "Note down: the new engineer is Jane Doe, 32."


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int = Field(description="In years.")


def rows() -> list[dict]:
    asked = urllib.request.Request(f"{BASE_URL}/models", headers={"authorization": f"Bearer {API_KEY}"})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return json.load(answer)["data"]


LIVE = [row for row in rows() if row["status"] != "soon"]


def models_with(*parameters: str) -> pytest.MarkDecorator:
    """Runs a test for each live model that says it takes all of these."""
    names = [row["id"] for row in LIVE if set(parameters) <= set(row["supported_parameters"])]
    assert names, parameters
    return pytest.mark.parametrize("model", names)
