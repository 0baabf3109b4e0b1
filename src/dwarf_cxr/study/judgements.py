"""Answers in terms of runs: the only place where answers and the key meet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from dwarf_cxr.errors import DataError
from dwarf_cxr.study.answers import QUESTIONS, Given
from dwarf_cxr.study.folder import Key, Study

OUTCOMES = (1, 0, -1)
"""First preferred, tie, second preferred."""


@dataclass(frozen=True)
class Judgement:
    """What a reader finally said of a comparison."""

    reader: str
    position: int
    comparison_id: str
    film: str
    patient: str
    """Whom the film shows, by the key's number; the film itself where an older key has none."""
    finding: str
    first: str
    """Of the two runs the one that was given first to `study create`."""
    second: str
    first_left: bool
    repeat: bool
    outcomes: Mapping[str, int]
    """Per question answered: 1 for the first run, -1 for the second, 0 for a tie."""
    confidence: int | None
    comment: str
    changes: int
    saved: str

    def left(self, question: str) -> int:
        """1 if the left map was preferred, -1 the right one, 0 neither."""
        return self.outcomes[question] * (1 if self.first_left else -1)


def judgements(study: Study, key: Key, given: Sequence[Given]) -> list[Judgement]:
    """Answers with the runs they are about.

    Raises:
        DataError: an answer to a comparison, or of a map, that the study or its key does not know.
    """
    order = {run.name: number for number, run in enumerate(key.runs)}
    judged = []
    for one in given:
        comparison = study.by_id.get(one.comparison_id)
        if comparison is None or any(name not in key.run_of_map for name in comparison.maps):
            raise DataError(
                f"{study.database}: answers to comparison {one.comparison_id}, which study.json "
                "and key.json do not have; restore the three files of one study"
            )
        left, right = (key.run_of_map[name] for name in comparison.maps)
        if one.swapped:
            left, right = right, left
        first, second = sorted((left, right), key=order.__getitem__)
        toward = {"A": 1 if left == first else -1, "B": 1 if right == first else -1, "tie": 0}
        confidence = one.answers.get("confidence")
        judged.append(
            Judgement(
                reader=one.reader,
                position=one.position,
                comparison_id=one.comparison_id,
                film=comparison.film,
                patient=str(key.patient_of_film.get(comparison.film, comparison.film)),
                finding=comparison.finding,
                first=first,
                second=second,
                first_left=left == first,
                repeat=one.repeat,
                outcomes={
                    question: toward[one.answers[question]]
                    for question in QUESTIONS
                    if question in one.answers
                },
                confidence=None if confidence is None else int(confidence),
                comment=one.answers.get("comment", ""),
                changes=one.changes,
                saved=one.saved,
            )
        )
    return judged


def outcomes_of(judged: Sequence[Judgement], question: str) -> Int[np.ndarray, "answer"]:
    """Outcomes of those that answered the question; the caller has chosen those who did."""
    return np.array([one.outcomes[question] for one in judged], dtype=np.int64)
