"""43: eight readers at once under a server that is killed: nothing lost, nothing twice."""

import http.client
import random
import secrets
import threading
import time
from urllib.parse import urlencode

import pytest
from sqlmodel import select

from dwarf_cxr.study.answers import Answer, Item, Reader, invite, open_answers
from dwarf_cxr.study.folder import read_key
from dwarf_cxr.web.links import Links, Visitor
from dwarf_cxr.web.store import reading
from tests.web.served import Server

READERS = tuple(f"reader {number}" for number in range(8))
QUESTIONS = ("accuracy", "specificity", "overall")
VALUES = ("A", "tie", "B")


class Client(threading.Thread):
    """A reader who answers and answers anew; what is not confirmed is sent again with its key."""

    def __init__(self, server, links, name, submissions):
        super().__init__()
        visitor = Visitor("reader", name)
        self.server, self.name_, self.submissions = server, name, submissions
        self.headers = {
            "Cookie": f"{links.cookie}={links.session(visitor)}",
            "X-CSRF-Token": links.form_token(visitor),
            "Content-Type": "application/x-www-form-urlencoded",
        }
        self.random = random.Random(name)
        self.confirmed: list[tuple[int, str, str, str]] = []
        self.retries = 0
        self.fault: str | None = None

    def run(self):
        connection = None
        for number in range(self.submissions):
            slot, turn = number % 66, number // 66
            position, question = slot % 22 + 1, QUESTIONS[slot // 22]
            value, key = VALUES[turn % 3], secrets.token_hex(16)
            body = urlencode({"question": question, "value": value, "key": key})
            deadline = time.monotonic() + 120
            while True:
                try:
                    if connection is None:
                        connection = http.client.HTTPConnection(
                            "127.0.0.1", self.server.port, timeout=20
                        )
                    connection.request(
                        "POST", f"/comparison/{position}/answers", body, self.headers
                    )
                    response = connection.getresponse()
                    response.read()
                    if response.status == 200:
                        break
                    if response.status < 500:
                        self.fault = f"status {response.status}"
                        return
                except (OSError, http.client.HTTPException):
                    connection = None
                    time.sleep(0.1)
                self.retries += 1
                if time.monotonic() > deadline:
                    self.fault = "no answer for two minutes"
                    return
            self.confirmed.append((position, question, value, key))
            if self.random.random() < 0.1:
                # impatient: the same once more, whether or not anybody is there
                try:
                    connection.request(
                        "POST", f"/comparison/{position}/answers", body, self.headers
                    )
                    connection.getresponse().read()
                except (OSError, http.client.HTTPException):
                    connection = None


def submit(study, submissions, kills):
    """Submissions of eight clients under a server that is killed; what they and the file know."""
    engine = open_answers(study)
    invite(engine, study, read_key(study.folder), READERS)
    server = Server(study.folder)
    server.start()
    chance = random.Random(1)
    links = Links.of(study.folder)
    clients = [Client(server, links, name, submissions) for name in READERS]
    killed = 0
    try:
        for client in clients:
            client.start()
        while any(client.is_alive() for client in clients):
            time.sleep(chance.uniform(0.05, 0.6))
            if killed < kills:
                server.kill()
                killed += 1
                server.start()
        for client in clients:
            client.join()
    finally:
        server.stop()
    with reading(engine) as session:
        rows = session.exec(
            select(Reader.name, Item.position, Answer.question, Answer.value, Answer.key)
            .join(Item, Item.reader_id == Reader.id)
            .join(Answer, Answer.item_id == Item.id)
            .order_by(Answer.id)
        ).all()
    engine.dispose()
    return clients, [tuple(row) for row in rows], killed


def check(study, submissions, kills):
    clients, rows, killed = submit(study, submissions, kills)
    assert [client.fault for client in clients] == [None] * 8
    assert killed == kills
    assert sum(client.retries for client in clients) > 0
    assert len(rows) == 8 * submissions
    for client in clients:
        own = [row[1:] for row in rows if row[0] == client.name_]
        # the same answers in the same order: none lost, none twice, none overtaken
        assert own == client.confirmed


def test_400_submissions(study):
    check(study, 50, kills=2)


@pytest.mark.slow
def test_10000_submissions(study):
    check(study, 1250, kills=12)
