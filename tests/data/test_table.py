import pytest

from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box
from dwarf_cxr.data.table import read_csv
from dwarf_cxr.errors import DataError

IMAGES = (
    "image_id,patient_id,split,text,Mass,Edema\n"
    'a,p1,train,"A mass, left",1,0\n'
    "b,p2,val,,0,\n"
    "c,p3,test,,,1\n"
)
REGIONS = "image_id,finding,x1,y1,x2,y2,annotator\na,Mass,1,2.5,10,9,reader 1\n"


@pytest.fixture
def root(draw, tmp_path):
    for name in ("films/a.png", "films/b.jpg", "c.png"):
        draw(name)
    (tmp_path / "images.csv").write_text(IMAGES)
    (tmp_path / "regions.csv").write_text(REGIONS)
    return tmp_path


def test_tables_become_radiographs(root):
    data = read_csv(root, name="mine")
    first, second, third = data.radiographs
    assert data.name == "mine"
    assert data.findings == ("Mass", "Edema")
    assert first.labels == {"Mass": True, "Edema": False}
    assert second.labels == {"Mass": False}
    assert third.labels == {"Edema": True}
    assert first.text == "A mass, left"
    assert second.text is None
    assert first.regions[0].shape == Box(1.0, 2.5, 10.0, 9.0)
    assert first.regions[0].annotator == "reader 1"
    assert second.path == root / "films" / "b.jpg"
    assert [one.split for one in data.radiographs] == ["train", "val", "test"]


def test_excel_tables_and_paths_are_understood(root):
    text = "path,patient_id,Mass\r\nfilms/a.png,p1,1\r\nc.png,p2,0\r\n"
    (root / "images.csv").write_bytes(text.encode("utf-8-sig"))
    data = read_csv(root)
    assert [one.image_id for one in data.radiographs] == ["a", "c"]
    assert data.radiographs[0].regions


def test_reports_may_be_called_report_text(root):
    (root / "images.csv").write_text(IMAGES.replace(",text,", ",report_text,"))
    data = read_csv(root)
    assert data.findings == ("Mass", "Edema")
    assert [one.text for one in data.radiographs] == ["A mass, left", None, None]
    (root / "images.csv").write_text("image_id,patient_id,text,report_text,Mass\na,p1,x,y,1\n")
    with pytest.raises(DataError, match="both 'text' and 'report_text'"):
        read_csv(root)


def test_images_with_text_and_no_region_are_prepared(root, tmp_path_factory):
    (root / "regions.csv").unlink()
    data = prepare(read_csv(root), tmp_path_factory.mktemp("data"), size=8)
    assert data.texts == ("A mass, left", None, None)
    assert not data.has_region().any()


def test_a_prepared_table_can_be_read_again(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("data")
    first = prepare(read_csv(root, name="mine"), out, size=8)
    again = prepare(read_csv(out, name="mine"), tmp_path_factory.mktemp("again"), size=8)
    assert (again.image_ids, again.splits, again.texts) == (
        first.image_ids, first.splits, first.texts,
    )  # fmt: skip


@pytest.mark.parametrize("label", ["-1", "0.5", "nan", "NaN", "1.0", "yes", "2"])
def test_labels_other_than_1_0_and_nothing_are_refused(root, label):
    (root / "images.csv").write_text(IMAGES.replace("b,p2,val,,0,", f"b,p2,val,,{label},"))
    with pytest.raises(DataError, match=f"line 3, column 'Mass': label '{label}'; write 1"):
        read_csv(root)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,Mass,nan,2,3,4,", "line 3: box .* is not finite"),
        ("a,Mass,1,2,inf,4,", "line 3: box .* is not finite"),
        ("a,Mass,1,,3,4,", "line 3: .*y1=''"),
        ("a,Mass,3,2,1,4,", "line 3: box .* has no area"),
        ("a,Mass,3,2,3,4,", "line 3: box .* has no area"),
        ("a,Cold,1,2,3,4,", "line 3: unknown finding 'Cold'; known: Mass, Edema"),
        ("z,Mass,1,2,3,4,", "line 3: image 'z' is not in images.csv"),
        ("a,Mass,1,2,3", "line 3: 5 fields where the header has 7"),
    ],
)
def test_bad_boxes_are_named(root, row, message):
    (root / "regions.csv").write_text(f"{REGIONS}{row}\n")
    with pytest.raises(DataError, match=message):
        read_csv(root)


def test_all_faults_of_both_tables_are_listed(root):
    (root / "regions.csv").write_text(REGIONS + "a,Cold,1,2,3,4,\n")
    (root / "images.csv").write_text(IMAGES + "a,p4,train,,1,1\nz,,train,,7,1\n")
    with pytest.raises(DataError) as caught:
        read_csv(root)
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    for words in (
        "'Cold'",
        "line 5: image id 'a' already stands in line 2",
        "line 6: 'patient_id'",
    ):
        assert any(words in line for line in lines)
    assert any("line 6, column 'Mass': label '7'" in line for line in lines)
    assert any("line 6: no PNG or JPEG named 'z'" in line for line in lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image_id,Mass\na,1\n", "no column 'patient_id'"),
        ("patient_id,Mass\np,1\n", "needs a column 'image_id' or 'path'"),
        ("image_id,patient_id\na,p\n", "needs one named column per finding"),
        ("image_id,patient_id,,Mass\na,p,1,1\n", "needs one named column per finding"),
        ("image_id,patient_id,Effusion,Pleural Effusion\na,p,1,1\n", "none of them twice"),
        ("image_id,patient_id,Mass\n", "lists no image"),
        ("image_id,patient_id,split,Mass\na,p,Later,1\n", "line 2, column 'split': 'Later'"),
        ("path,patient_id,Mass\nfilms/x.png,p,1\n", "line 2: .*x.png: no such file"),
    ],
)
def test_tables_without_what_is_needed(root, content, message):
    (root / "regions.csv").unlink()
    (root / "images.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_csv(root)


def test_bad_encoding_and_a_missing_table(root):
    (root / "images.csv").write_bytes(IMAGES.replace("left", "gau\xe7he").encode("latin-1"))
    with pytest.raises(DataError, match=r"images\.csv, line 2: byte 0xe7 is not UTF-8"):
        read_csv(root)
    (root / "images.csv").unlink()
    with pytest.raises(DataError, match=r"images\.csv: no such file"):
        read_csv(root)


def test_boxes_outside_are_clipped_or_refused(root, tmp_path_factory):
    (root / "regions.csv").write_text(REGIONS + "a,Mass,20,-3,99,9,\n")
    out = tmp_path_factory.mktemp("data")
    with pytest.raises(DataError, match=r"'a', region 2 \(Mass\): reached out of the 24×16 image"):
        prepare(read_csv(root), out, size=8, strict=True)
    data = prepare(read_csv(root), out, size=8)
    assert data.regions(0, "Mass")[1].shape == Box(20.0, 0.0, 24.0, 9.0)


def test_a_box_on_a_finding_not_labelled_present_is_kept_and_noted(root):
    (root / "regions.csv").write_text(REGIONS + "b,Mass,1,2,3,4,\n")
    data = read_csv(root)
    assert data.radiographs[1].regions
    assert any("b (Mass)" in note for note in data.notes)


def in_two_folders(root, draw, region_id):
    draw("north/film.png")
    draw("south/film.png")
    (root / "images.csv").write_text(
        "image_id,path,patient_id,Mass\n"
        "north/film,north/film.png,p1,1\nsouth/film,south/film.png,p2,1\n"
    )
    (root / "regions.csv").write_text(f"image_id,finding,x1,y1,x2,y2\n{region_id},Mass,1,2,5,6\n")


def test_a_region_belongs_to_one_of_two_images_of_the_same_name(root, draw):
    in_two_folders(root, draw, "south/film")
    assert [len(one.regions) for one in read_csv(root).radiographs] == [0, 1]


def test_a_region_that_can_be_of_two_images_is_refused(root, draw):
    in_two_folders(root, draw, "film")
    with pytest.raises(DataError, match="any of north/film, south/film"):
        read_csv(root)


def test_regions_in_another_format_are_not_lost_without_a_word(root, tmp_path):
    folder = prepare(read_csv(root), tmp_path / "data", size=8).folder
    (note,) = [note for note in read_csv(folder).notes if "regions.json" in note]
    assert "coco" in note
