"""43: eight readers who change and undo under a server that is killed: every change once."""

import json
import random
import secrets
from contextlib import closing

import pytest

from dwarf_cxr.review.annotation import assessment_to_json
from dwarf_cxr.review.ledger import Ledger
from tests.review.made import FINDINGS, HEIGHT, WIDTH, write_data
from tests.web.served import Server
from tests.web.submissions import JSON, Client, send_under_kills

READERS = tuple(f"reader {number}" for number in range(8))
FILMS = 6
NOTHING = {"verdict": None, "regions": [], "comment": ""}


class Pages:
    """What a reader did, film by film: all states so far, and which one is shown."""

    def __init__(self, name):
        self.random = random.Random(name)
        self.states = [[[NOTHING] * len(FINDINGS)] for _ in range(FILMS)]
        self.shown = [0] * FILMS
        self.versions = [0] * FILMS
        self.confirmed = []  # film, key, action, finding, before, after: a row of the audit each

    def changing(self, submissions):
        for number in range(submissions):
            film, key = self.random.randrange(FILMS), secrets.token_hex(16)
            states, shown = self.states[film], self.shown[film]
            kinds = ["edit"] * 3 + ["undo"] * (shown > 0) + ["redo"] * (shown + 1 < len(states))
            kind = self.random.choice(kinds)
            content = {"kind": kind, "key": key, "version": self.versions[film]}
            before = states[shown]
            if kind == "edit":
                touched = self.random.sample(range(len(FINDINGS)), self.random.randint(1, 3))
                edits = {finding: self.words(number) for finding in touched}
                content["findings"] = {str(finding): one for finding, one in edits.items()}
                after = [edits.get(finding, one) for finding, one in enumerate(before)]
                states[shown + 1 :] = [after]
            self.shown[film] += -1 if kind == "undo" else 1
            after = states[self.shown[film]]
            answer = json.loads((yield f"/films/{film + 1}/changes", json.dumps(content)))
            assert answer["findings"] == after
            self.versions[film] = answer["version"]
            self.confirmed += sorted(
                (film, key, kind, FINDINGS[finding], json.dumps(one), json.dumps(other))
                for finding, (one, other) in enumerate(zip(before, after, strict=True))
                if one != other
            )

    def words(self, number):
        """Never the same twice."""
        x, y = self.random.randrange(WIDTH - 20), self.random.randrange(HEIGHT - 20)
        shape = {"kind": "box", "x1": float(x), "y1": float(y), "x2": x + 9.5, "y2": y + 12.25}
        region = {"shape": shape, "origin": "drawn", "suggested": None}
        return {"verdict": "present", "regions": [region], "comment": f"no. {number}"}


def check(tmp_path, submissions, kills):
    data = write_data(tmp_path / "data", films=FILMS)
    folder = tmp_path / "review"
    words = ("review", "serve", str(data.folder), "--review", str(folder))
    server = Server(folder, *words, "--readers", ",".join(READERS))
    pages = {name: Pages(name) for name in READERS}
    folder.mkdir()
    clients = [Client(server, name, JSON, pages[name].changing(submissions)) for name in READERS]
    send_under_kills(server, clients, kills)
    with closing(Ledger(folder / "review.db")) as ledger:
        rows = list(ledger.changes())
        states = {
            (name, film): ledger.state(film, name) for name in READERS for film in range(FILMS)
        }
    assert len({row.key for row in rows}) == 8 * submissions
    assert [row.id for row in rows] == sorted({row.id for row in rows})
    for name in READERS:
        # the confirmed changes in their order: none lost, none twice, none overtaken
        own = [row for row in rows if row.reader == name]
        as_rows = [
            (row.film, row.key, row.action, row.finding, row.before, row.after) for row in own
        ]
        assert [plain(row) for row in by_step(as_rows)] == [
            plain(row) for row in pages[name].confirmed
        ]
        last = {}
        for row in own:
            case = row.film, row.finding
            assert json.loads(row.before) == last.get(case, NOTHING)
            last[case] = json.loads(row.after)
        for film in range(FILMS):
            state = states[name, film]
            assert state.version == pages[name].versions[film]
            assert [
                assessment_to_json(state.assessments[finding])
                if finding in state.assessments
                else NOTHING
                for finding in FINDINGS
            ] == pages[name].states[film][pages[name].shown[film]]
    return len(rows), sum(client.retries for client in clients)


def by_step(rows):
    """Rows in their order, those of one change by finding."""
    order = {key: number for number, key in enumerate(dict.fromkeys(row[1] for row in rows))}
    return sorted(rows, key=lambda row: (order[row[1]], row[3]))


def plain(row):
    return (*row[:4], json.loads(row[4]), json.loads(row[5]))


def test_400_changes(tmp_path):
    check(tmp_path, 50, kills=2)


@pytest.mark.slow
def test_10000_changes(tmp_path):
    rows, retries = check(tmp_path, 1250, kills=12)
    print(f"10,000 changes, 12 kills: {rows} rows, {retries} sent again")
