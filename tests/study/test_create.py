import dataclasses
import io
import json
import shutil
import stat
from itertools import combinations

import numpy as np
import pytest
from PIL import Image
from sqlmodel import select
from typer.testing import CliRunner

from dwarf_cxr.cli import app
from dwarf_cxr.data.originals import original_film
from dwarf_cxr.data.splits import patient_hashes
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError, DataError
from dwarf_cxr.models.checkpoint import load_model, save_model
from dwarf_cxr.study.answers import Item, invite, open_answers
from dwarf_cxr.study.create import StudySettings, create_study
from dwarf_cxr.study.folder import Study, read_key
from dwarf_cxr.study.pictures import film_png, map_png, stretched
from dwarf_cxr.study.report import analyse, lines, page
from dwarf_cxr.web.store import reading
from tests.study.made import FINDINGS, RUNS

FEW = StudySettings(per_finding=2, seed=5)


def create(models, data, out, settings=FEW, findings=FINDINGS):
    return create_study(models, data.folder, findings, out, settings)


def test_every_map_is_the_model_s_own(frozen, made_data, made_models):
    study, key = Study.open(frozen), read_key(frozen)
    assert len(study.comparisons) == 20
    folders = {path.name: path for path in made_models}
    for one in study.comparisons[::5]:
        index = made_data.image_ids.index(key.image_of_film[one.film])
        for name in one.maps:
            model = load_model(folders[key.run_of_map[name]])
            maps = model.predict(made_data.pixels[[index]], [one.finding]).maps
            expected = map_png(maps[0, 0], (256, 192))
            assert study.map_path(name).read_bytes() == expected


def test_films_are_the_originals(frozen, made_data):
    study, key = Study.open(frozen), read_key(frozen)
    for film in study.films[:3]:
        index = made_data.image_ids.index(key.image_of_film[film.film_id])
        with Image.open(frozen / "films" / f"{film.film_id}.png") as shown:
            np.testing.assert_array_equal(
                np.asarray(shown), np.asarray(Image.open(made_data.sources[index]))
            )


def test_without_the_originals_the_prepared_pixels_serve(
    made_data, made_models, tmp_path, monkeypatch
):
    """And it is said, so that nobody judges small films without knowing."""
    gone = dataclasses.replace(made_data, sources=("/none",) * len(made_data.sources))
    monkeypatch.setattr(PreparedData, "open", lambda folder: gone)
    data = made_data.folder
    words = [word for run in made_models[:2] for word in ("--run", run)]
    words += ["--data", data, "--per-finding", 2, "--out", tmp_path / "a"]
    result = CliRunner().invoke(app, ["study", "create", *map(str, words)])
    assert result.exit_code == 0, result.output
    assert f"warning: 4 of 4 films are shown as {data} has them, small" in result.stderr
    study, key = Study.open(tmp_path / "a"), read_key(tmp_path / "a")
    assert json.loads((tmp_path / "a" / "study.json").read_text())["small_films"] == 4
    film = study.films[0]
    index = made_data.image_ids.index(key.image_of_film[film.film_id])
    shown = (study.folder / "films" / f"{film.film_id}.png").read_bytes()
    assert shown == film_png(made_data.pixels[index], (film.width, film.height))
    assert "4 of 4 shown small" in page(analyse(study, key, [], [], draws=100))


def test_changed_originals_are_not_shown(made_data):
    changed = dataclasses.replace(made_data, sources=made_data.sources[1:] + made_data.sources[:1])
    assert original_film(changed, 3) is None
    np.testing.assert_array_equal(
        original_film(made_data, 3), np.asarray(Image.open(made_data.sources[3]))
    )


def test_only_the_key_knows(frozen):
    assert stat.S_IMODE((frozen / "key.json").stat().st_mode) == 0o600
    words = [*RUNS, *RUNS.values(), "giraffe", "walrus"]
    for path in frozen.rglob("*"):
        assert not any(word in path.name for word in words)
        if path.is_file() and path.name != "key.json":
            content = path.read_bytes()
            assert not any(word.encode() in content for word in words), path
    sizes = {path.stat().st_size for path in (frozen / "maps").iterdir()}
    assert len(sizes) == 1


def test_first_map_of_a_pair_is_either_run_s(frozen):
    study, key = Study.open(frozen), read_key(frozen)
    firsts = [key.run_of_map[one.maps[0]] for one in study.comparisons]
    assert len(set(firsts)) == 2
    assert all(len({key.run_of_map[name] for name in one.maps}) == 2 for one in study.comparisons)


def test_same_seed_same_films(made_data, made_models, tmp_path):
    first = create(made_models[:2], made_data, tmp_path / "a")
    second = create(made_models[:2], made_data, tmp_path / "b")
    other = create(made_models[:2], made_data, tmp_path / "c", StudySettings(2, seed=6))

    def shown(study):
        images = read_key(study.folder).image_of_film
        return [(images[one.film], one.finding) for one in study.comparisons]

    assert shown(first) == shown(second)
    assert shown(first) != shown(other)


def test_seed_tells_nothing_of_whose_map_it_is(made_data, made_models, tmp_path):
    """It stands in study.json, and the program is public: who has both must not learn the rest."""

    def made(number):
        study = create(made_models[:2], made_data, tmp_path / f"{number}", StudySettings(10))
        key = read_key(study.folder)
        first = [key.run_of_map[one.maps[0]] for one in study.comparisons]
        engine = open_answers(study)
        invite(engine, study, key, ["ann"])
        with reading(engine) as session:
            items = session.exec(select(Item).order_by(Item.position)).all()
        engine.dispose()
        left = [
            key.run_of_map[study.by_id[item.comparison_id].maps[int(item.swapped)]]
            for item in items
        ]
        return set(key.run_of_map), first, left

    (names, first, left), (others, first_too, left_too) = made(1), made(2)
    assert not names & others
    # equal by chance once in a million
    assert first != first_too
    assert left != left_too


def by(study, measure):
    """Runs of the maps, in the order of something that anybody who lists the folder sees."""
    key = read_key(study.folder)
    paths = sorted((study.folder / "maps").iterdir(), key=measure)
    return [key.run_of_map[path.stem] for path in paths]


def test_listing_the_maps_tells_nothing(frozen):
    """Neither times, nor places on the disk, nor names, nor sizes: all of run 1 came first once."""
    study = Study.open(frozen)
    for folder in ("maps", "films"):
        assert {path.stat().st_mtime_ns for path in (frozen / folder).iterdir()} == {0}
    for measure in (
        lambda path: path.stat().st_ctime_ns,
        lambda path: path.stat().st_ino,
        lambda path: path.name,
    ):
        runs = by(study, measure)
        assert len(runs) == 40
        half = runs[:20].count(runs[0])
        # of 20 of 40 at random, 5 to 15 are one run's but for 3 in 1000 times
        assert 4 <= half <= 16


def test_maps_of_all_runs_are_files_of_one_form(frozen):
    """All but the pixels: the head with size and depth, palette, transparency, no other part."""
    forms = set()
    for path in (frozen / "maps").iterdir():
        content = path.read_bytes()
        at = content.index(b"IDAT")
        with Image.open(path) as image:
            forms.add((content[:at], len(content), image.mode, image.size))
            assert set(image.info) == {"transparency"}
    assert len(forms) == 1


def test_study_is_its_owner_s_alone(made_data, made_models, tmp_path):
    settings = StudySettings(2, seed=5, show_regions=True)
    study = create(made_models[:2], made_data, tmp_path / "a", settings)
    for path in (study.folder, *study.folder.rglob("*")):
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_patients_have_a_number_in_the_key_alone(made_data, made_models, tmp_path, monkeypatch):
    two = tuple("hippo" if number % 2 else "rhino" for number in range(len(made_data.image_ids)))
    same = dataclasses.replace(made_data, patient_ids=two)
    monkeypatch.setattr(PreparedData, "open", lambda folder: same)
    monkeypatch.setattr("dwarf_cxr.study.create.refuse_seen_patients", lambda *_: None)
    study = create(made_models[:2], made_data, tmp_path / "a")
    key = read_key(study.folder)
    assert set(key.patient_of_film) == {film.film_id for film in study.films}
    assert set(key.patient_of_film.values()) == {1, 2}
    for one, other in combinations(key.patient_of_film, 2):
        patients = {
            same.patient_ids[same.image_ids.index(key.image_of_film[film])] for film in (one, other)
        }
        assert (len(patients) == 1) == (key.patient_of_film[one] == key.patient_of_film[other])
    for path in (study.folder / "study.json", study.folder / "key.json"):
        assert "hippo" not in path.read_text()
    assert "patient" not in (study.folder / "study.json").read_text()


def test_three_runs_are_compared_in_twos(made_data, made_models, tmp_path):
    study = create(made_models, made_data, tmp_path / "a")
    key = read_key(study.folder)
    pairs = [tuple(sorted(key.run_of_map[name] for name in one.maps)) for one in study.comparisons]
    assert len(pairs) == 12
    assert {pairs.count(pair) for pair in pairs} == {4}
    # a map is the same whomever it is compared with
    assert len({name for one in study.comparisons for name in one.maps}) == 12


def test_true_regions_are_outlined_when_asked(made_data, made_models, tmp_path):
    settings = StudySettings(2, seed=5, show_regions=True)
    study = create(made_models[:2], made_data, tmp_path / "a", settings)
    key = read_key(study.folder)
    for one in study.comparisons:
        index = made_data.image_ids.index(key.image_of_film[one.film])
        (region,) = made_data.regions(index, one.finding)
        alpha = np.asarray(Image.open(study.region_path(one)).convert("RGBA"))[..., 3]
        rows, columns = np.nonzero(alpha)
        box = region.shape
        assert abs(columns.min() - box.x1) <= 2
        assert abs(rows.max() + 1 - box.y2) <= 2
    assert not (create(made_models[:2], made_data, tmp_path / "b").folder / "regions").exists()


def test_stretched_maps(made_data, made_models, tmp_path):
    study = create(made_models[:2], made_data, tmp_path / "a", StudySettings(1, stretch=True))
    key = read_key(study.folder)
    one = study.comparisons[0]
    index = made_data.image_ids.index(key.image_of_film[one.film])
    folders = {path.name: path for path in made_models}
    model = load_model(folders[key.run_of_map[one.maps[0]]])
    maps = model.predict(made_data.pixels[[index]], [one.finding]).maps
    expected = Image.open(io.BytesIO(map_png(stretched(maps[0, 0]), (256, 192))))
    found = Image.open(study.map_path(one.maps[0]))
    assert found.mode == expected.mode == "P"
    # one film alone and among others differ in the last digits, which stretching shows
    steps = np.asarray(found).astype(int) - np.asarray(expected)
    assert np.abs(steps).max() <= 1


def test_runs_of_one_name_are_told_apart_by_their_folders(made_data, made_models, tmp_path):
    for number in (1, 2):
        shutil.copytree(made_models[number - 1], tmp_path / f"seed{number}" / "run")
    runs = [tmp_path / "seed1" / "run", tmp_path / "seed2" / "run"]
    key = read_key(create(runs, made_data, tmp_path / "a").folder)
    assert [run.name for run in key.runs] == ["seed1/run", "seed2/run"]


def test_wrong_wishes_leave_nothing(made_data, made_models, tmp_path):
    out = tmp_path / "a"
    with pytest.raises(ConfigError, match="two different runs"):
        create(made_models[:1], made_data, out)
    with pytest.raises(ConfigError, match="two different runs"):
        create([made_models[0], made_models[0] / "."], made_data, out)
    with pytest.raises(ConfigError, match="have learned from these films"):
        create(made_models[:2], made_data, out, StudySettings(1, split="train"))
    with pytest.raises(ConfigError, match="unknown finding 'Edema'"):
        create(made_models[:2], made_data, out, findings=["Edema"])
    with pytest.raises(DataError, match="too few patients"):
        create(made_models[:2], made_data, out, StudySettings(30))
    with pytest.raises(ConfigError, match="of 4 comparisons at most 2"):
        create(made_models[:2], made_data, out, StudySettings(2, repeats=3))
    assert list(tmp_path.iterdir()) == []


def test_films_that_a_model_was_trained_on_are_refused(made_data, made_models, tmp_path):
    model = load_model(made_models[0])
    ids = [made_data.patient_ids[index] for index in made_data.indices("test")[:3]]
    model.card = dataclasses.replace(
        model.card,
        data_fingerprint="0" * 64,
        seen_patients=patient_hashes(made_data.patients_of, ids),
    )
    save_model(model, tmp_path / "seen")
    with pytest.raises(DataError, match="3 patients of split 'test'"):
        create([tmp_path / "seen", made_models[1]], made_data, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_runs_trained_on_other_data_are_told(made_data, made_models, tmp_path):
    """To who makes the study and in its key; nowhere that readers could see it."""
    model = load_model(made_models[1])
    model.card = dataclasses.replace(
        model.card, data_name="otherset", data_fingerprint="f" * 64, splits_sha256="0" * 64
    )
    save_model(model, tmp_path / "lemur-four")
    words = ["--run", made_models[0], "--run", tmp_path / "lemur-four", "--data", made_data.folder]
    words += ["--per-finding", 2, "--out", tmp_path / "a"]
    result = CliRunner().invoke(app, ["study", "create", *map(str, words)])
    assert result.exit_code == 0, result.output
    (warning,) = [line for line in result.stderr.splitlines() if line.startswith("warning")]
    assert (
        "lemur-four was trained or calibrated on other data (otherset, fingerprint ffff" in warning
    )
    assert f"({made_data.name}, {made_data.fingerprint[:12]}…)" in warning
    study, key = Study.open(tmp_path / "a"), read_key(tmp_path / "a")
    assert [run.trained_on for run in key.runs] == [made_data.name, "otherset"]
    report = analyse(study, key, [], [], draws=100)
    assert lines(report)[0] == warning
    assert "lemur-four was trained or calibrated on other data" in page(report)
    assert "otherset" not in (tmp_path / "a" / "study.json").read_text()


def test_runs_of_the_same_data_are_not(frozen):
    study = Study.open(frozen)
    assert read_key(frozen).trained_elsewhere(study) == []
    assert study.small_films == 0


def test_keys_of_before_are_read(study):
    path = study.folder / "key.json"
    content = json.loads(path.read_text())
    for run in content["runs"]:
        del run["trained_on"], run["trained_fingerprint"]
    del content["patient_of_film"], content["order_seed"]
    path.write_text(json.dumps(content))
    key = read_key(study.folder)
    assert key.trained_elsewhere(study) == []
    assert (key.patient_of_film, key.order_seed) == ({}, None)


def test_models_are_asked_before_films_are_frozen(made_data, made_models, tmp_path):
    told = []
    create_study(
        made_models[:2],
        made_data.folder,
        FINDINGS,
        tmp_path / "a",
        StudySettings(1),
        lambda *words: told.append(words),
    )
    assert told == [
        ("asking run 1 of 2", 0, 4),
        ("asking run 2 of 2", 1, 4),
        ("freezing film 1 of 2", 2, 4),
        ("freezing film 2 of 2", 3, 4),
        ("everything is frozen", 4, 4),
    ]


def test_too_many_repeats_are_refused_before_anything_is_asked(made_data, made_models, tmp_path):
    told = []
    with pytest.raises(ConfigError, match="of 4 comparisons at most 2"):
        create_study(
            made_models[:2],
            made_data.folder,
            FINDINGS,
            tmp_path / "a",
            StudySettings(2, repeats=3),
            lambda *words: told.append(words),
        )
    assert told == []


def test_a_study_is_never_overwritten(study, made_data, made_models):
    with pytest.raises(DataError, match="never overwritten"):
        create(made_models[:2], made_data, study.folder)


def test_damaged_studies(study, tmp_path):
    with pytest.raises(DataError, match="no study there"):
        Study.open(tmp_path / "none")
    content = json.loads((study.folder / "study.json").read_text())
    del content["films"]
    (study.folder / "study.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="a part is missing or wrong"):
        Study.open(study.folder)
    (study.folder / "study.json").write_text("{}")
    with pytest.raises(DataError, match="not of the format"):
        Study.open(study.folder)
    (study.folder / "key.json").write_text("{}")
    with pytest.raises(DataError, match="a part is missing or wrong"):
        read_key(study.folder)
