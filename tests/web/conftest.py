"""The study of tests/study, for its pages."""

from tests.study.conftest import frozen, made_data, made_models, study

__all__ = ["frozen", "made_data", "made_models", "study"]
