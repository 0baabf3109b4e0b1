import csv
import hmac
import threading

import pytest

from dwarf_cxr.data.identity import default_link_table, link_table
from dwarf_cxr.errors import DataError


def test_pseudonyms_are_keyed_hashes_and_stay_the_same(tmp_path):
    path = tmp_path / "mine" / "links.csv"
    with link_table(path) as links:
        first = links.pseudonym("patient", "4711")
        salt = links.salt
    assert first == "P" + hmac.new(salt, b"patient\x004711", "sha256").hexdigest()[:16]
    with link_table(path) as links:
        assert links.pseudonym("patient", "4711") == first
        assert links.pseudonym("image", "4711") != first.replace("P", "I")
    with link_table(tmp_path / "other.csv") as links:
        assert links.pseudonym("patient", "4711") != first


def test_the_table_is_private_and_leads_back(tmp_path):
    path = tmp_path / "links.csv"
    path.touch(mode=0o644)
    path.unlink()
    with link_table(path) as links:
        name = links.pseudonym("image", "1.2,3\n", "/films/\udcff.dcm")
        odd = links.pseudonym("patient", "4711\r8", "")
    assert path.stat().st_mode & 0o777 == 0o600
    rows = list(csv.reader(path.open(newline="", encoding="utf-8")))
    assert rows[0] == ["kind", "pseudonym", "original", "file"]
    assert rows[1] == ["salt", "", links.salt.hex(), ""]
    assert rows[2] == ["image", name, "1.2,3\n", "/films/\\udcff.dcm"]
    assert rows[3] == ["patient", odd, "4711\r8", ""]
    path.chmod(0o644)
    with link_table(path) as again:
        assert again.salt == links.salt
        assert again.rows == {
            ("image", name): ("1.2,3\n", "/films/\\udcff.dcm"),
            ("patient", odd): ("4711\r8", ""),
        }
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_table_is_saved_when_the_work_fails(tmp_path):
    path = tmp_path / "links.csv"

    def fail() -> None:
        with link_table(path) as links:
            links.note_file("SMITH/1", "damaged")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert "SMITH/1" in path.read_text()


@pytest.mark.parametrize(
    "content", ["", "a,b\n", "kind,pseudonym,original,file\nsalt,,xyz,\n", "\xff", "\0"]
)
def test_another_file_is_never_written_over(tmp_path, content):
    path = tmp_path / "links.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match="not a link table"), link_table(path):
        pass
    assert path.read_bytes() == content.encode("latin-1")


def test_writers_at_the_same_time_lose_nothing(tmp_path):
    path = tmp_path / "links.csv"

    def enter(number: int) -> None:
        with link_table(path) as links:
            links.pseudonym("patient", str(number))

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(path.read_text().splitlines()) == 2 + 8


def test_the_default_table_lies_with_the_users_data(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_link_table() == tmp_path / "dwarf-cxr" / "links.csv"
