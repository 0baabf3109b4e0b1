"""43: eight readers at once under a server that is killed: nothing lost, nothing twice."""

import secrets
from urllib.parse import urlencode

import pytest
from sqlmodel import select

from dwarf_cxr.study.answers import Answer, Item, Reader, invite, open_answers
from dwarf_cxr.study.folder import read_key
from dwarf_cxr.web.store import reading
from tests.web.served import Server
from tests.web.submissions import FORM, Client, send_under_kills

READERS = tuple(f"reader {number}" for number in range(8))
QUESTIONS = ("accuracy", "specificity", "overall")
VALUES = ("A", "tie", "B")


def answering(submissions, confirmed):
    """A reader who answers and answers anew; what was confirmed is put down."""
    for number in range(submissions):
        slot, turn = number % 66, number // 66
        position, question = slot % 22 + 1, QUESTIONS[slot // 22]
        value, key = VALUES[turn % 3], secrets.token_hex(16)
        body = urlencode({"question": question, "value": value, "key": key})
        yield f"/comparison/{position}/answers", body
        confirmed.append((position, question, value, key))


def check(study, submissions, kills):
    engine = open_answers(study)
    invite(engine, study, read_key(study.folder), READERS)
    server = Server(study.folder)
    confirmed = {name: [] for name in READERS}
    clients = [
        Client(server, name, FORM, answering(submissions, confirmed[name])) for name in READERS
    ]
    send_under_kills(server, clients, kills)
    with reading(engine) as session:
        rows = session.exec(
            select(Reader.name, Item.position, Answer.question, Answer.value, Answer.key)
            .join(Item, Item.reader_id == Reader.id)
            .join(Answer, Answer.item_id == Item.id)
            .order_by(Answer.id)
        ).all()
    engine.dispose()
    assert len(rows) == 8 * submissions
    for name in READERS:
        # the same answers in the same order: none lost, none twice, none overtaken
        assert [tuple(row[1:]) for row in rows if row[0] == name] == confirmed[name]


def test_400_submissions(study):
    check(study, 50, kills=2)


@pytest.mark.slow
def test_10000_submissions(study):
    check(study, 1250, kills=12)
