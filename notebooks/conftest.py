"""Tests shorten every optimisation in the notebooks and skip no cell; `GEODREAM_FAST=0` runs them whole."""

import os

import pytest

from geodream_lib.presets import FAST_VARIABLE


def pytest_runtest_setup(item: pytest.Item) -> None:
    os.environ.setdefault(FAST_VARIABLE, "1")


def pytest_runtest_teardown(item: pytest.Item) -> None:
    if os.environ[FAST_VARIABLE] == "1":
        del os.environ[FAST_VARIABLE]
